"""An actor's state as its store has it posted: what its process, and a replica of it, begin with."""

from __future__ import annotations

from zbank.domain.legs import SYSTEM_NUMBERS
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.storage.sqlite import JournalStore


def posted_branch(store: JournalStore, name: str, currency: str) -> BranchState:
    """A branch's, as of the watermark. Raises ForeignStore when it is in another currency, CorruptStore when it is damaged."""
    state = BranchState(name, currency)
    system = store.load_accounts(sorted(SYSTEM_NUMBERS))
    closed = store.count_closed()
    state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows(), system, closed)
    return state


def posted_coordinator(store: JournalStore, name: str) -> CoordinatorState:
    """A coordinator's, as of the watermark. Raises CorruptStore when it is damaged."""
    state = CoordinatorState(name)
    state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
    return state
