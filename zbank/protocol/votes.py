"""The answers to Prepare, one function each kind (PROTOCOL P3)."""

from __future__ import annotations

from zbank.domain.book import branch_movements, net
from zbank.domain.legs import DIGEST_BYTES, check_legs, home_branch
from zbank.domain.refusal import Refusal
from zbank.errors import InvalidInput
from zbank.protocol import retiring
from zbank.protocol.branch_meta import PreparedTxn
from zbank.protocol.branch_state import BranchState
from zbank.protocol.fold import Settled
from zbank.protocol.messages import CONFLICT, KNOWN, OCCUPIED, REFUSED, YES, Prepare, Vote
from zbank.protocol.outcomes import fits, outcome_of
from zbank.protocol.records import Content, Prepared, Record, Refused


def first(state: BranchState, message: Prepare) -> tuple[Record | None, Vote]:
    """The vote on a transfer that is new here, with the record that it stands on: a yes means that commit cannot fail (P4)."""
    transfer = message.transfer
    refusal = retiring.refusal(state) or state.book.check(
        net(branch_movements(transfer.legs, state.name)), transfer.currency
    )
    content = Content(
        transfer.legs, transfer.currency, transfer.memo, transfer.effective_on, message.digest, message.caller
    )
    if refusal is None:
        vote = Vote(message.txn, transfer.id, YES, state.number, state.seq + 1)
        return Prepared(transfer.id, message.txn, content), vote
    if home_branch(transfer.legs) != state.name:
        return None, plain(state, message, REFUSED, refusal=refusal)
    vote = Vote(message.txn, transfer.id, REFUSED, state.number, state.seq + 1, refusal=refusal, final=True)
    return Refused(transfer.id, message.digest, message.caller, refusal, content), vote


def plain(state: BranchState, message: Prepare, answer: str, *, seq: int = 0, refusal: Refusal | None = None) -> Vote:
    """A vote that needs no more than its kind; `seq` is the row it stands on, when that is not the last one."""
    return Vote(message.txn, message.transfer.id, answer, state.number, seq or state.seq, refusal=refusal)


def known(state: BranchState, message: Prepare, settled: Settled) -> Vote:
    """The id is settled: the outcome, for the caller and content it is settled for."""
    if not fits(settled, message.digest, message.caller):
        return plain(state, message, CONFLICT)
    outcome = outcome_of(settled)
    return Vote(message.txn, message.transfer.id, KNOWN, state.number, state.seq, outcome=outcome)


def occupied(state: BranchState, message: Prepare, held: PreparedTxn) -> Vote:
    """Another txn of the id is prepared here."""
    if held.content.digest != message.digest or held.content.caller != message.caller:
        return plain(state, message, CONFLICT)
    return Vote(message.txn, message.transfer.id, OCCUPIED, state.number, state.seq, other=held.txn)


def unsound(state: BranchState, message: Prepare) -> str:
    """Why no coordinator of this protocol can have sent this; "" when one can."""
    try:
        check_legs(message.transfer.legs)
    except InvalidInput as error:
        return f"{message.txn} asks for what is no transfer: {error.detail}"
    if len(message.digest) != DIGEST_BYTES:  # an empty one would later fit any content
        return f"{message.txn} comes without the digest of its content"
    if all(leg.branch != state.name for leg in message.transfer.legs):
        return f"{message.txn} has no leg at this branch"
    return ""
