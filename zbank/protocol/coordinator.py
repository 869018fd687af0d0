"""The coordinator: drives two-phase commit between branches, presumed abort, decisions kept for good.

Every message to a coordinator comes in here. What is durable is in `coordinator_state`; the two halves of a txn are in
`collecting` and `finishing`. Rules: PROTOCOL P1–P11. The life of a transfer here:

    collecting ── all yes ──▶ decided (forced) ── all acks ──▶ ended
        │  ├───── refused ──▶ aborting ── home's tombstone acked ──▶ told aborted
        │  └───── void, occupied at home ──▶ waiting ──▶ collecting, under a new txn
        └──────── deadline, busy ──▶ forgotten: no outcome, the same id may be sent again
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar

from zbank.clock import Now
from zbank.domain.account import Account
from zbank.domain.legs import branches_of, check_date, check_legs, content_digest
from zbank.domain.refusal import MAX_DETAIL_CHARS
from zbank.errors import FenceLost, InvalidInput
from zbank.protocol import tokens
from zbank.protocol.attempts import Attempt, busy
from zbank.protocol.collecting import Collector
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.coordinator_status import coordinator_status
from zbank.protocol.directory import Directory
from zbank.protocol.finishing import Finisher, Finishing
from zbank.protocol.fold import Settled
from zbank.protocol.forwarding import Forwarder
from zbank.protocol.gate import alone, wanting
from zbank.protocol.leaving import Leaver
from zbank.protocol.machine import (
    BUSY_RETRY_MS,
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
    COORDINATOR,
    OUT_OF_OFFICE,
    STALE,
    Abort,
    Ack,
    AckedBy,
    AnyMessage,
    Commit,
    Fault,
    Feed,
    GetActs,
    GetDirectory,
    GetTokens,
    Inquiry,
    MakeToken,
    NameAcks,
    Named,
    Outcome,
    Position,
    Promote,
    Promoting,
    Register,
    RegisterReplica,
    RetireAnswer,
    RetireBranch,
    RevokeToken,
    StatusInfo,
    StillPending,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.outcomes import replay
from zbank.protocol.records import AcksNamed, BranchPromoted, Content, NotedKey, Record, Started

MAX_WAITERS = 100  #: for one transfer
NO_FEED = Feed()


class Coordinator(Machine):
    """The state machine of a coordinator."""

    role: ClassVar[str] = COORDINATOR

    def __init__(
        self,
        state: CoordinatorState,
        *,
        before: Coordinator | None = None,
        configured: Collection[str] = (),
        feed: Feed = NO_FEED,
        wanted_acks: str = "",
    ) -> None:
        """`before` is the machine that was thrown away within this epoch (T2): its txn numbers are never used again, and
        the branches that were there still are. `wanted_acks`: the replica of it that is to be the synchronous one."""
        super().__init__(state)
        self.state = state
        self._wanted_acks = wanted_acks
        self.directory = Directory(state, configured, feed)
        self._finisher = Finisher(self.time, self.directory.unaware)
        last_n = before._collector.last_n if before else 0
        self._collector: Collector = Collector(state, self._finisher, last_n)
        self._leaver: Leaver = Leaver(state, self.directory, self._in_use, self.label_us, before._leaver if before else None)
        self._forwarder: Forwarder = before._forwarder if before else Forwarder()
        if before is not None:
            self.directory.carry_on(before.directory)

    @property
    def acks(self) -> AckedBy | None:
        """Its own synchronous replica, by the last word."""
        return wanting(self.state.acks.get(self.state.name), self._wanted_acks)

    @property
    def closed(self) -> Fault | None:
        """A coordinator that is behind serves nothing (P11)."""
        behind = self.directory.behind
        return Fault(code=OUT_OF_OFFICE, detail=behind) if behind else None

    def withholds(self, id: bytes) -> bool:
        """This commit may be told to nobody yet."""
        return self._finisher.withholds(id)

    def untold(self, message: AnyMessage) -> Fault | None:
        """Why this question is not answered now; None when it is."""
        return self.closed or self._finisher.untold(message)

    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """Add the ids that the message uses, or asks the decision of."""
        if isinstance(message, (Transfer, Inquiry, MakeToken)) and message.id not in self.state.settled:
            wanted.ids.add(message.id)

    def load(self, settled: Iterable[Settled], tombstones: Iterable[Txn], accounts: Iterable[Account]) -> None:
        """Take in what the store had of what was wanted."""
        for row in settled:
            self.state.settled.setdefault(row.id, row)

    def touches(self, record: Record) -> Iterable[str]:
        """A coordinator has no accounts."""
        return ()

    def start(self, version: str) -> list[Record]:
        """Take office: decisions that are not acked by all are sent again as branches register."""
        return [Started(version=version)]

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message."""
        decide = _DECIDE.get(type(message))
        if decide is None:
            return not_for_me(self.role, sender, n, message)
        return decide(self, in_whose_name(sender, message), n, message, now)

    def decline(self, sender: Sender, n: int, message: AnyMessage, fault: Fault) -> Collection[Effect]:
        """Not taken on now."""
        declines = isinstance(message, Transfer | MakeToken | RevokeToken | Promote | NameAcks | RetireBranch)
        if declines or (fault.code == OUT_OF_OFFICE and self.directory.turns_away(message)):
            return (Effect(sender.address, n, fault),)
        return ()

    # --- a request -------------------------------------------------------------------------------------------------

    def _transfer(self, sender: Sender, n: int, message: Transfer, now: Now) -> Step:
        """Begin two-phase commit, join what runs already, or answer from the record (P1, P7)."""
        if self.closed is not None:
            return _told(sender, n, self.closed)
        legs = message.legs
        try:
            check_legs(legs)
            check_date(message.effective_on)
        except InvalidInput as error:
            return _told(sender, n, fault_of(error))
        names = branches_of(legs)
        if len(names) == 1:
            fault = self.directory.unavailable(names, now)
            if fault is not None:
                return _told(sender, n, fault)
            return self._forwarder.forward(sender, n, message, names[0], self.state.epoch, now)
        digest = content_digest(legs, message.currency, message.memo, message.effective_on)
        running = self.running(message.id)
        if running is not None:
            return self._join(sender, n, running, digest)
        settled = self.state.settled.get(message.id)
        if settled is not None:
            return _told(sender, n, replay(settled, digest, sender.caller, is_ended=True))
        fault = self.directory.unavailable(names, now) or self._leaver.refuse(names)
        fault = fault or busy(len(self._collector) + len(self._finisher))
        if fault is not None:
            return _told(sender, n, fault)
        content = Content(legs, message.currency, message.memo, message.effective_on, digest, sender.caller)
        return Step(None, self._collector.begin(message, content, (sender.address, n), now))

    def _join(self, sender: Sender, n: int, running: Attempt | Finishing, digest: bytes) -> Step:
        """The same transfer asked for again while it runs: one run, all askers told."""
        content = running.content if isinstance(running, Attempt) else running.decision.content
        if content.digest != digest or content.caller != sender.caller:
            return _told(sender, n, CONFLICTING_ID)
        waiter = (sender.address, n)
        if waiter in running.waiters:
            return NOTHING
        if len(running.waiters) >= MAX_WAITERS:
            fault = Fault(code="busy", detail="too many ask for this transfer at once", retry_after_ms=BUSY_RETRY_MS)
            return _told(sender, n, fault)
        running.waiters.append(waiter)
        return NOTHING

    def _forwarded(self, sender: Sender, n: int, message: Outcome | Fault, now: Now) -> Step:
        return self._forwarder.answered(sender.caller, n, message)

    # --- votes -----------------------------------------------------------------------------------------------------

    def _position(self, sender: Sender, n: int, message: Position, now: Now) -> Step:
        self._collector.positions[sender.caller] = message
        return NOTHING

    def _is_former(self, branch: str) -> bool:
        """What this says comes from a branch whose place another one took, and is late: it stands on void rows (R2)."""
        promotion = self.state.promotions.get(branch)
        position = self._collector.positions.get(branch)
        return promotion is not None and (position is None or position.epoch < promotion.epoch)

    def _vote(self, sender: Sender, n: int, message: Vote, now: Now) -> Step:
        """A vote; or the news that this process is no longer in office (P11)."""
        attempt = self._collector.get(message.id)
        if message.answer == STALE and attempt is not None and attempt.txn == message.txn:
            raise FenceLost(f"branch {sender.caller} knows a newer epoch of coordinator {self.state.name}: leaving")
        if self.directory.behind or self._is_former(sender.caller):  # it might contradict what was forgotten, or became void
            return NOTHING
        return self._collector.voted(sender.caller, message, now)

    # --- acks ------------------------------------------------------------------------------------------------------

    def _ack(self, sender: Sender, n: int, message: Ack, now: Now) -> Step:
        """A branch has applied a commit, or voided a txn."""
        if self._is_former(sender.caller):
            return NOTHING
        finishing = self._finisher.get(message.id)
        if finishing is not None and finishing.decision.txn == message.txn:
            position = self._collector.positions.get(sender.caller)
            return self._finisher.acked(finishing, sender.caller, message.seq, position, now)
        return self._collector.abort_acked(sender.caller, message, now)

    def _inquiry(self, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        """A branch is in doubt. Commit from the record; abort only for what surely was never decided (P5, P11)."""
        txn, id = message.txn, message.id
        settled = self.state.settled.get(id)
        if self.directory.behind or self.withholds(id):  # what it decided may be void: another may have its place
            return _told(sender, n, StillPending(txn, id))
        if settled is not None and settled.txn == txn:
            return _told(sender, n, Commit(txn, id, settled.number))
        if txn.coordinator != self.state.name or txn.epoch > self.state.epoch:
            return _told(sender, n, StillPending(txn, id))
        undecided = self._collector.inquired(sender.caller, txn, id, now)
        return Step(None, (undecided,)) if undecided else _told(sender, n, Abort(txn, id))

    # --- the directory and time ------------------------------------------------------------------------------

    def _register(self, sender: Sender, n: int, message: Register, now: Now) -> Step:
        """A branch is there (again): take it into the directory, and send what it has not answered."""
        joining = self.directory.register(sender, n, message)
        if self.directory.behind:
            return joining
        again = self._finisher.for_branch(message.info.name) + self._collector.for_branch(message.info.name, now)
        return Step(joining.record, [*joining.effects, *again])

    def _register_replica(self, sender: Sender, n: int, message: RegisterReplica, now: Now) -> Step:
        if message.info.name != sender.caller:
            return _told(sender, n, Fault(code="malformed", detail=f"{sender.caller} cannot register as {message.info.name}"))
        answer = Effect(sender.address, n, self.directory.replica(message, now))
        named = self.directory.wanted(message.info, self._wanted_acks)
        return Step(named, [answer, *(self._words(named) or self.directory.reminder(message.info))])

    def _name_acks(self, sender: Sender, n: int, message: NameAcks, now: Now) -> Step:
        """An operator says who holds an actor's rows before anything leaves it (R3)."""
        found = self.closed or self.directory.name(message, sender.caller, now)
        if not isinstance(found, AcksNamed):
            return _told(sender, n, found)
        return Step(found, [Effect(sender.address, n, Named(self._word(found))), *self._words(found)])

    def _words(self, named: AcksNamed | None) -> list[Effect]:
        return self.directory.told(named.of, self._word(named)) if named is not None else []

    def _word(self, named: AcksNamed) -> AckedBy:
        return AckedBy(named.replica, named.instance, self.state.seq + 1)

    def _promote(self, sender: Sender, n: int, message: Promote, now: Now) -> Step:
        """An operator puts a replica in its branch's place: what stood on the branch's last rows is asked for again."""
        if self.closed is not None:
            return _told(sender, n, self.closed)
        found = self.directory.promote(message, sender.caller, now)
        if not isinstance(found, BranchPromoted):
            return _told(sender, n, found)
        self._collector.void(message.branch)
        self._finisher.void(message.branch, self.state.open, now)
        promoting = Effect(sender.address, n, Promoting(self.directory.info_of(message.replica)))
        return Step(found, (*self._leaver.void(message.branch), promoting))

    def _retire_branch(self, sender: Sender, n: int, message: RetireBranch, now: Now) -> Step:
        if self.closed is not None:
            return _told(sender, n, self.closed)
        return self._leaver.ask(message.branch, sender.caller, (sender.address, n), now)

    def _retire_answer(self, sender: Sender, n: int, message: RetireAnswer, now: Now) -> Step:
        if message.refusal is not None and sender.caller in self.state.retired:
            text = f"branch {sender.caller} was retired, and runs with an old copy of its data: {message.refusal.detail}"
            self.alarms[f"retired {sender.caller}"] = text[:MAX_DETAIL_CHARS]
        else:
            self.alarms.pop(f"retired {sender.caller}", None)
        late = self.directory.behind or self._is_former(sender.caller)
        return NOTHING if late else self._leaver.answered(sender.caller, message, now)

    def _in_use(self, branch: str) -> int:
        return self._collector.count_of(branch) + self._finisher.count_of(branch)

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _make_token(self, sender: Sender, n: int, message: MakeToken, now: Now) -> Step:
        if self.running(message.id) is not None:
            return _told(sender, n, CONFLICTING_ID)
        return self._of_tokens(sender, n, *tokens.make(self.state, sender.caller, message, self.label_us(now)))

    def _revoke_token(self, sender: Sender, n: int, message: RevokeToken, now: Now) -> Step:
        return self._of_tokens(sender, n, *tokens.revoke(self.state, sender.caller, message, self.label_us(now)))

    def _of_tokens(self, sender: Sender, n: int, record: Record | None, answer: AnyMessage) -> Step:
        behind = self.closed  # a token that was revoked may be good here
        return _told(sender, n, behind) if behind else Step(record, (Effect(sender.address, n, answer),))

    def _get_tokens(self, sender: Sender, n: int, message: GetTokens, now: Now) -> Step:
        return self._of_tokens(sender, n, None, tokens.page(self.state, message))

    def keys_seen(self, good: Iterable[NotedKey]) -> Step:
        """Note what has changed in the list of keys."""
        return Step(self.state.acts.seen(good))

    def peer_down(self, name: str, now: Now) -> None:
        """A branch is gone: if it does not come back at once, new transfers with it are refused as branch_unavailable."""
        self.directory.gone(name, now)

    def tick(self, now: Now) -> Step:
        """Send again, give up, tell late, end."""
        effects = [*self.directory.call_back(), *self._collector.due(now)]
        if not self.directory.behind:
            effects += self._finisher.due(self.directory.up, now)
        self._forwarder.forget(now)
        left = self._leaver.due(now)
        return Step(left.record or self._finisher.end(), [*effects, *left.effects])

    def resume(self, now: Now) -> None:
        """Pick up the decisions of the restored state that are not acked by all; they leave as branches register."""
        if self.directory.begun_us < 0:
            self.directory.begun_us = now.mono_us
        for decision in self.state.open.values():
            self._finisher.begin(decision, [], -1, now, gone=self.state.retired)

    def forced(self, mono_us: int) -> None:
        """The decisions of this turn are on disk."""
        self._finisher.forced(mono_us)

    def running(self, id: bytes) -> Attempt | Finishing | None:
        """The transfer of this id, while it is not over."""
        return self._collector.get(id) or self._finisher.get(id)

    def status(self, about: About, now: Now) -> StatusInfo:
        """How this coordinator does."""
        state = self.state
        behind = [self.directory.behind] if self.directory.behind else []
        alarms = (*behind, *self.alarms.values(), *alone(state.name, state.acks.get(state.name), self._wanted_acks))
        return coordinator_status(state, about, COORDINATOR, state.name, alarms, len(self._collector) + len(self._finisher))


def _told(sender: Sender, n: int, answer: AnyMessage) -> Step:
    return Step(None, (Effect(sender.address, n, answer),))


_DECIDE: dict[type[AnyMessage], Callable[[Coordinator, Sender, int, Any, Now], Step]] = {
    Transfer: Coordinator._transfer,
    Vote: Coordinator._vote,
    Ack: Coordinator._ack,
    Position: Coordinator._position,
    Inquiry: Coordinator._inquiry,
    Register: Coordinator._register,
    RegisterReplica: Coordinator._register_replica,
    Promote: Coordinator._promote,
    NameAcks: Coordinator._name_acks,
    MakeToken: Coordinator._make_token,
    RevokeToken: Coordinator._revoke_token,
    GetTokens: Coordinator._get_tokens,
    GetActs: lambda self, sender, n, message, now: _told(sender, n, self.state.acts.latest(message)),
    GetDirectory: lambda self, sender, n, message, now: _told(sender, n, self.directory.answer(now)),
    RetireBranch: Coordinator._retire_branch,
    RetireAnswer: Coordinator._retire_answer,
    Outcome: Coordinator._forwarded,
    Fault: Coordinator._forwarded,
}
