"""A branch: executes what is local, and takes part in two-phase commit for what is not.

Everything a branch decides is in this file; what its decisions do to its state is in `branch_state`. PROTOCOL P1–P11.
The life of an id at one branch:

    (nothing) ── local transfer ──▶ committed | aborted                      one record, no coordinator
    (nothing) ── Prepare ──▶ prepared ── Commit ──▶ committed
                                │  └──── Abort ───▶ (nothing, the txn void)  the id may come back under another txn
                                └ Abort with refusal ▶ aborted
    (nothing) ── refused at home | Abort with refusal | Cancel ──▶ aborted
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar

from zbank.clock import Now
from zbank.domain.account import Account
from zbank.domain.book import branch_movements, net
from zbank.domain.legs import SUSPENSE, check_date, check_legs, content_digest
from zbank.domain.refusal import CANCELLED, Refusal
from zbank.errors import InvalidInput
from zbank.protocol import accounts, inquiry, needs, retiring, votes
from zbank.protocol.branch_state import BranchState
from zbank.protocol.branch_status import branch_status
from zbank.protocol.fold import Settled
from zbank.protocol.gate import alone, wanting
from zbank.protocol.inquiry import Inquirer
from zbank.protocol.machine import (
    CONFLICTING_ID,
    NOTHING,
    About,
    Effect,
    Machine,
    Sender,
    Step,
    Wanted,
    fault_of,
    in_whose_name,
    not_for_me,
)
from zbank.protocol.messages import (
    ABORTED,
    BRANCH,
    BUSY,
    COMMITTED,
    COORDINATOR,
    PENDING,
    STALE,
    STOPPED,
    STORAGE_FULL,
    VOID,
    YES,
    Abort,
    Ack,
    AckedBy,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Commit,
    Fault,
    Forward,
    GetAccount,
    Inquired,
    InquireNow,
    Inquiry,
    OpenAccount,
    Outcome,
    Prepare,
    Redeliver,
    Redelivering,
    Registered,
    Retire,
    StatusInfo,
    StillPending,
    Transfer,
    Txn,
)
from zbank.protocol.outcomes import fits, next_row, outcome_of, replay
from zbank.protocol.reconciling import Reconciler
from zbank.protocol.records import (
    Aborted,
    AccountOpened,
    AcksBy,
    Committed,
    Content,
    Executed,
    Record,
    Refused,
    Started,
)

DECISIONS = frozenset({Commit, Abort, Redeliver, Redelivering})
MAX_PREPARED = 50_000  #: prepared txns a branch holds; above it new ones are refused as busy (P4)


class Participant(Machine):
    """The state machine of a branch."""

    role: ClassVar[str] = BRANCH

    def __init__(
        self,
        state: BranchState,
        system_accounts: Collection[str],
        coordinator_count: int = 1,
        wanted_acks: str = "",
        before: Participant | None = None,
    ) -> None:
        """`coordinator_count`: so many are configured; a promoted branch opens when all have told what they decided.
        `wanted_acks`: the replica that is to be the synchronous one by the config; until it is named, nothing leaves.
        `before`: the machine that was thrown away (T2); what a coordinator told it is told no second time."""
        super().__init__(state)
        self.state = state
        self._system_accounts = system_accounts
        self._inquirer: Inquirer = Inquirer(state, before._inquirer if before else None)
        self._reconciler: Reconciler = Reconciler(state, coordinator_count, before._reconciler if before else None)
        self._wanted_acks = wanted_acks
        self._told_acks: AckedBy | None = before._told_acks if before else None  #: by the coordinator: to be taken over

    @property
    def closed(self) -> Fault | None:
        """A promoted branch lacks commits until it is reconciled."""
        return None if self.state.promotion is None else self._reconciler.fault

    @property
    def acks(self) -> AckedBy | None:
        """The synchronous replica, by the coordinator's last word."""
        return wanting(self.state.acks, self._wanted_acks)

    # --- what the turn needs ---------------------------------------------------------------------------------------

    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """Add what `decide` of this message looks at and is not in memory."""
        needs.want(self.state, message, wanted)

    def load(self, settled: Iterable[Settled], tombstones: Iterable[Txn], accounts: Iterable[Account]) -> None:
        """Take in what the store had of what was wanted."""
        for row in settled:
            self.state.settled.setdefault(row.id, row)
        self.state.tombstones.update(tombstones)
        for account in accounts:
            self.state.book.accounts.setdefault(account.number, account)  # what is in memory is never older

    def touches(self, record: Record) -> Iterable[str]:
        """The accounts that `apply` of this record changes."""
        return needs.touched(self.state, record)

    # --- deciding --------------------------------------------------------------------------------------------------

    def start(self, version: str) -> list[Record]:
        """Take office; a new branch opens its system accounts, a promoted one `suspense` as well."""
        wanted = [*self._system_accounts, *([SUSPENSE] if self.state.promotion is not None else [])]
        code = self.state.book.currency_code
        opened = [AccountOpened(b"", b"", "", number, "", code, 0) for number in wanted if number not in self.state.system]
        return [Started(version=version), *opened]

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message."""
        decide = _DECIDE.get(type(message))
        if decide is None:
            return not_for_me(self.role, sender, n, message)
        if type(message) in DECISIONS and self._inquirer.unrecorded(sender.caller) is not None:
            return NOTHING  # it is told again
        put_off = self._reconciler.put_off(sender, n, message, self.decline)
        if put_off is not None:
            return put_off
        return decide(self, in_whose_name(sender, message), n, message, now)

    def decline(self, sender: Sender, n: int, message: AnyMessage, fault: Fault) -> Collection[Effect]:
        """Not taken on now: a fault to a client, a vote that binds nobody to a coordinator."""
        if isinstance(message, Prepare):
            answer = {"storage_full": STORAGE_FULL, "branch_unavailable": STOPPED}.get(fault.code, BUSY)
            return (Effect(sender.address, n, votes.plain(self.state, message, answer)),)
        if isinstance(message, Transfer | Forward | Cancel | OpenAccount | ChangeAccount):
            return (Effect(sender.address, n, fault),)
        return ()

    def _answer(self, sender: Sender, n: int, message: AnyMessage, record: Record | None = None) -> Step:
        return Step(record, (Effect(sender.address, n, message),))

    def _forward(self, sender: Sender, n: int, message: Forward, now: Now) -> Step:
        return self._transfer(sender._replace(caller=message.caller), n, message.transfer, now)

    def _transfer(self, sender: Sender, n: int, message: Transfer, now: Now) -> Step:
        """A local transfer: committed or refused by one record (P1)."""
        state = self.state
        legs = message.legs
        try:
            check_legs(legs)
            check_date(message.effective_on)
        except InvalidInput as error:
            return self._answer(sender, n, fault_of(error))
        for leg in legs:
            if leg.branch != state.name:
                detail = f"{leg.account} is not an account of {state.name}: send this transfer to the coordinator"
                return self._answer(sender, n, Fault(code="not_here", detail=detail))
        digest = content_digest(legs, message.currency, message.memo, message.effective_on)
        settled = state.settled.get(message.id)
        if settled is not None:
            return self._answer(sender, n, replay(settled, digest, sender.caller, branch=state.name))
        if message.id in state.prepared:
            return self._answer(sender, n, CONFLICTING_ID)
        content = Content(legs, message.currency, message.memo, message.effective_on, digest, sender.caller)
        refusal = retiring.refusal(state) or state.book.check(net(branch_movements(legs, state.name)), message.currency)
        if refusal is not None:
            return self._refuse(sender, n, message.id, digest, refusal, now, content)
        record = Executed(message.id, state.number, content)
        outcome = Outcome(message.id, COMMITTED, None, state.number, self.label_us(now), False, True, next_row(state))
        return Step(record, (Effect(sender.address, n, outcome),))

    def _refuse(
        self, sender: Sender, n: int, id: bytes, digest: bytes, refusal: Refusal, now: Now, content: Content | None = None
    ) -> Step:
        record = Refused(id, digest, sender.caller, refusal, content)
        outcome = Outcome(id, ABORTED, refusal, 0, self.label_us(now), False, True, next_row(self.state))
        return self._answer(sender, n, outcome, record)

    def _cancel(self, sender: Sender, n: int, message: Cancel, now: Now) -> Step:
        """Settle the id as aborted unless it is settled or prepared (P6)."""
        settled = self.state.settled.get(message.id)
        if settled is not None:
            if settled.caller != sender.caller:
                return self._answer(sender, n, CONFLICTING_ID)
            return self._answer(sender, n, outcome_of(settled, branch=self.state.name))
        held = self.state.prepared.get(message.id)
        if held is not None:
            pending = Outcome(message.id, PENDING, None, 0, 0, False, False)
            return self._answer(sender, n, pending if held.content.caller == sender.caller else CONFLICTING_ID)
        return self._refuse(sender, n, message.id, b"", Refusal(CANCELLED, "cancelled before it was executed"), now)

    def _open_account(self, sender: Sender, n: int, message: OpenAccount, now: Now) -> Step:
        record, answer = accounts.open_account(self.state, sender.caller, message, self.label_us(now))
        return self._answer(sender, n, answer, record)

    def _change_account(self, sender: Sender, n: int, message: ChangeAccount, now: Now) -> Step:
        record, answer = accounts.change_account(self.state, sender.caller, message, self.label_us(now))
        return self._answer(sender, n, answer, record)

    def _get_account(self, sender: Sender, n: int, message: GetAccount, now: Now) -> Step:
        return self._answer(sender, n, accounts.get_account(self.state, message))

    # --- two-phase commit ------------------------------------------------------------------------------------------

    def _prepare(self, sender: Sender, n: int, message: Prepare, now: Now) -> Step:
        """Vote (P3, P4). Whatever is settled or void never prepares (P9)."""
        state = self.state
        txn = message.txn
        id = message.transfer.id
        mark = state.coordinators.get(txn.coordinator)
        if txn.coordinator != sender.caller or (mark is not None and txn.epoch < mark.epoch):
            return self._answer(sender, n, votes.plain(state, message, STALE))
        settled = state.settled.get(id)
        if settled is not None:
            return self._answer(sender, n, votes.known(state, message, settled))
        held = state.prepared.get(id)
        if held is not None:
            vote = (
                votes.plain(state, message, YES, seq=held.seq)
                if held.txn == txn
                else votes.occupied(state, message, held)
            )
            return self._answer(sender, n, vote)
        if txn in state.tombstones:
            return self._answer(sender, n, votes.plain(state, message, VOID))
        fault = votes.unsound(state, message)
        if fault:
            self.alarms["bad_prepare"] = fault
        if fault or len(state.prepared) >= MAX_PREPARED:
            return self._answer(sender, n, votes.plain(state, message, BUSY))
        record, vote = votes.first(state, message)
        return self._answer(sender, n, vote, record)

    def _commit(self, sender: Sender, n: int, message: Commit, now: Now) -> Step:
        """Post what was prepared; safe to repeat."""
        state = self.state
        held = state.prepared.get(message.id)
        if not inquiry.may_tell(sender, held):
            return NOTHING
        if held is not None and held.txn == message.txn:
            ack = Ack(message.txn, message.id, state.seq + 1)
            return self._acknowledge(sender, n, ack, Committed(message.id, message.txn, message.number))
        settled = state.settled.get(message.id)
        if settled is not None and settled.txn == message.txn and settled.outcome == COMMITTED:
            return self._acknowledge(sender, n, Ack(message.txn, message.id, settled.seq))
        self.alarms["mismatch"] = f"{message.txn} was committed elsewhere and is not prepared here: needs an operator"
        return NOTHING

    def _abort(self, sender: Sender, n: int, message: Abort, now: Now) -> Step:
        """Release what was prepared, void the txn; with a refusal settle the id. Safe to repeat, or to come first."""
        state = self.state
        id = message.id
        held = state.prepared.get(id)
        settled = state.settled.get(id)
        if not inquiry.may_tell(sender, held):
            return NOTHING
        if settled is not None:  # the id is settled already: a late Abort changes nothing (P9)
            outcome = outcome_of(settled)
            conflict = message.refusal is not None and not fits(settled, message.digest, message.caller)
            return self._acknowledge(sender, n, Ack(message.txn, id, state.seq, outcome=None if conflict else outcome))
        if held is not None and held.txn != message.txn and message.refusal is not None:
            return self._acknowledge(sender, n, Ack(message.txn, id, state.seq, other=held.txn))
        if message.refusal is None and message.txn in state.tombstones:
            return self._acknowledge(sender, n, Ack(message.txn, id, state.seq))
        told = None
        if message.refusal is not None:
            told = Outcome(id, ABORTED, message.refusal, 0, self.label_us(now), False, True)
        record = Aborted(id, message.txn, message.refusal, message.digest, message.caller)
        return self._acknowledge(sender, n, Ack(message.txn, id, state.seq + 1, outcome=told), record)

    def _acknowledge(self, sender: Sender, n: int, ack: Ack, record: Record | None = None) -> Step:
        """Acks are for the coordinator; a participant that only passed the decision on (P8) does not wait for one."""
        if sender.role != COORDINATOR:
            return Step(record)
        return self._answer(sender, n, ack, record)

    def _inquiry(self, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        """Another participant is in doubt (P8)."""
        answer, record = inquiry.answer(self.state, message)
        return self._answer(sender, n, answer, record)

    def _inquire_now(self, sender: Sender, n: int, message: InquireNow, now: Now) -> Step:
        """An operator does not want to wait until it is time to ask."""
        held = self.state.prepared.get(message.id)
        if held is None or held.txn != message.txn:
            detail = f"branch {self.state.name} is not in doubt of {message.txn}"
            return self._answer(sender, n, Fault(code="not_in_doubt", detail=detail))
        effects = self._inquirer.now(held)
        asked = tuple(str(effect.to) for effect in effects)
        return Step(None, (*effects, Effect(sender.address, n, Inquired(message.id, asked))))

    def _registered(self, sender: Sender, n: int, message: Registered, now: Now) -> Step:
        """The coordinator is in office with this epoch: remember it, and ask about all that is in doubt."""
        if message.coordinator != sender.caller:
            return NOTHING
        own = next((info for info in message.branches if info.name == self.state.name), None)
        word, told = own.acks if own is not None else retiring.last_word(self.state), self._told_acks
        if word is not None and (told is None or word.generation > told.generation):  # no order of messages is assumed (P9)
            self._told_acks = word
        effects = [
            *self._inquirer.met(message),
            *self._reconciler.met(message.coordinator, now),
            *retiring.news(self.state, message.coordinator),
        ]
        return Step(self._inquirer.unrecorded(message.coordinator), effects)

    def _redeliver(self, sender: Sender, n: int, message: Redeliver, now: Now) -> Step:
        step, alarm = self._reconciler.redeliver(sender.caller, message)
        if alarm:
            self.alarms["mismatch"] = f"{alarm}: needs an operator"
        return step

    def _redelivering(self, sender: Sender, n: int, message: Redelivering, now: Now) -> Step:
        return self._reconciler.redelivering(sender.caller, message, now)

    def _retire(self, sender: Sender, n: int, message: Retire, now: Now) -> Step:
        return retiring.retire(self.state, sender, message)

    # --- time and peers --------------------------------------------------------------------------------------

    def tick(self, now: Now) -> Step:
        """Inquire about what is in doubt for too long (P8); take over who is named as synchronous replica (R3)."""
        told, known = self._told_acks, self.state.acks
        record = AcksBy(told) if told and (known is None or told.generation > known.generation) else None
        return Step(record or self._inquirer.to_record(), self._inquirer.due(now) + self._reconciler.due(now))

    def peer_down(self, name: str, now: Now) -> None:
        """A coordinator is silent: others will be asked."""
        self._inquirer.lost(name)
        self._reconciler.lost(name)

    def status(self, about: About, now: Now) -> StatusInfo:
        """How this branch does."""
        state = self.state
        alarms = (*self.alarms.values(), *alone(state.name, state.acks, self._wanted_acks))
        return branch_status(state, about, BRANCH, state.name, alarms, self._inquirer.in_doubt(now))


_DECIDE: dict[type[AnyMessage], Callable[[Participant, Sender, int, Any, Now], Step]] = {
    Transfer: Participant._transfer,
    Forward: Participant._forward,
    Prepare: Participant._prepare,
    Commit: Participant._commit,
    Abort: Participant._abort,
    Inquiry: Participant._inquiry,
    InquireNow: Participant._inquire_now,
    Cancel: Participant._cancel,
    OpenAccount: Participant._open_account,
    ChangeAccount: Participant._change_account,
    GetAccount: Participant._get_account,
    Registered: Participant._registered,
    Redeliver: Participant._redeliver,
    Redelivering: Participant._redelivering,
    Retire: Participant._retire,
    StillPending: lambda self, sender, n, message, now: NOTHING,
}
