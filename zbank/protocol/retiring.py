"""The end of a branch, at the branch: whether it is empty, and what it says when it is closed for good.

The branch alone can say that it is empty, so its record closes it: what a coordinator knows may be old. From that record on
nothing changes its books, whoever asks and however late, so whatever is still on its way is refused or was settled before.
"""

from __future__ import annotations

from zbank.clock import format_time
from zbank.domain.legs import CASH, SUSPENSE
from zbank.domain.money import currency, format_amount
from zbank.domain.refusal import BRANCH_NOT_EMPTY, BRANCH_RETIRED, Refusal
from zbank.protocol.branch_state import BranchState
from zbank.protocol.machine import NOTHING, Effect, Sender, Step
from zbank.protocol.messages import AckedBy, Retire, RetireAnswer
from zbank.protocol.records import Retired


def refusal(state: BranchState) -> Refusal | None:
    """Why nothing new is taken on here; None while the branch is open."""
    if state.retired is None:
        return None
    return Refusal(BRANCH_RETIRED, f"branch {state.name} was retired and is closed for good: use another branch")


def retire(state: BranchState, sender: Sender, message: Retire) -> Step:
    """Close for good, or say why not."""
    mark = state.coordinators.get(sender.caller)
    if mark is not None and message.epoch < mark.epoch:
        return NOTHING  # it comes late: who asked was told long ago that nothing is known
    if state.retired is not None:
        return Step(None, news(state, sender.caller))
    why = _why_not(state)
    if why:
        no = RetireAnswer(message.by, Refusal(BRANCH_NOT_EMPTY, why))
        return Step(None, (Effect(sender.address, 0, no),))
    told = dict.fromkeys((sender.caller, *state.coordinators))  # others may have it in their directories, too
    answer = RetireAnswer(message.by)
    return Step(Retired(sender.caller, message.by), [Effect(name, 0, answer) for name in told])


def news(state: BranchState, coordinator: str) -> list[Effect]:
    """What a coordinator has to know that may have forgotten, or has never heard."""
    return [] if state.retired is None else [Effect(coordinator, 0, RetireAnswer(state.retired.by))]


def last_word(state: BranchState) -> AckedBy | None:
    """Who acknowledges what a branch does that is in no directory any more: nobody has to, and nobody could be named."""
    if state.retired is None or (state.acks is not None and not state.acks.replica):
        return None
    return AckedBy("", b"", 1 if state.acks is None else state.acks.generation + 1)


def followed(state: BranchState) -> AckedBy | None:
    """The coordinator's last word that a branch has followed; the last one of a retired branch is its own."""
    return state.acks if state.retired is None else None


def notice(state: BranchState) -> list[str]:
    """What the status says of it."""
    if state.retired is None:
        return []
    by = f" by {state.retired.by}" if state.retired.by else ""
    at = format_time(state.retired.at_us)[:19].replace("T", " ")
    return [
        f"branch {state.name} was retired{by} on {at}: it is closed for good and only answers questions; "
        "stop it when nobody needs its history any more, and keep its data"
    ]


def _why_not(state: BranchState) -> str:
    """What stands on the books or is promised; "" when nothing is."""
    name = state.name
    if state.promotion is not None:  # what it does not know yet may put money on its accounts
        return f"branch {name} has just been promoted and still asks what was decided: ask again when it serves"
    if state.prepared:
        return f"branch {name} has voted for {len(state.prepared)} transfers that are not decided: ask again when they are"
    open_count = state.account_count - len(state.system) - state.closed_count
    if open_count:
        accounts = "1 account that is" if open_count == 1 else f"{open_count} accounts that are"
        return f"branch {name} has {accounts} not closed: empty and close each, `zbank accounts {name}` shows them"
    if state.suspense_minor:
        unit = currency(state.book.currency_code)
        amount = f"{format_amount(state.suspense_minor, unit)} {unit.code}"
        why = "which accounts could not bear after a promotion: settle it first, `zbank status` says how"
        return f"{name}/{SUSPENSE} has {amount}, {why}"
    if state.clearing_minor:
        # Customers have nothing, and all sums to zero: what the other branches owe lies, or lacks, in the cash desk.
        unit = currency(state.book.currency_code)
        amount = format_amount(abs(state.clearing_minor), unit)
        here, there = f"{name}/{CASH}", f"OTHER/{CASH}"
        source, destination = (there, here) if state.clearing_minor > 0 else (here, there)
        return (
            f"the cash desk of {name} is not settled with the other branches: carry {amount} {unit.code} over, "
            f"`zbank transfer {source} {destination} {amount}` with a branch in place of OTHER"
        )
    return ""
