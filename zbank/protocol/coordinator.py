"""The coordinator: drives two-phase commit between branches, presumed abort, decisions kept for good.

Everything a coordinator decides is in this file; what is durable of it is in `coordinator_state`, what is not in
`attempts`. Rules: PROTOCOL P1–P11. The life of a transfer here:

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
from zbank.domain.legs import branches_of, check_legs, content_digest
from zbank.domain.refusal import Refusal
from zbank.errors import FenceLost, InvalidInput
from zbank.protocol.attempts import ABORTING, COLLECTING, RESEND_US, RETRY_US, WAITING, Attempt, new_attempt
from zbank.protocol.coordinator_state import CoordinatorState, OpenDecision
from zbank.protocol.directory import Directory
from zbank.protocol.finishing import Finisher, Finishing
from zbank.protocol.fold import Settled
from zbank.protocol.forwarding import Forwarder
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
    not_for_me,
)
from zbank.protocol.messages import (
    ABORTED,
    BUSY,
    CONFLICT,
    COORDINATOR,
    KNOWN,
    OCCUPIED,
    REFUSED,
    STALE,
    STORAGE_FULL,
    VOID,
    YES,
    Abort,
    Ack,
    AnyMessage,
    Commit,
    Fault,
    GetDirectory,
    Inquiry,
    Outcome,
    Position,
    Register,
    StatusInfo,
    StillPending,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.outcomes import replay
from zbank.protocol.records import BranchVote, Content, Decided, Record, Started

MAX_IN_FLIGHT = 20_000
BUSY_RETRY_MS = 100


class Coordinator(Machine):
    """The state machine of a coordinator."""

    role: ClassVar[str] = COORDINATOR

    def __init__(self, state: CoordinatorState, *, last_n: int = 0, configured: Collection[str] = ()) -> None:
        """`last_n` carries the txn numbers on when the state was rebuilt within one epoch."""
        super().__init__(state)
        self.state = state
        self.last_n = last_n
        self.directory = Directory(state, configured)
        self._attempts: dict[bytes, Attempt] = {}
        self._finisher = Finisher(self.time)
        self._forwarder = Forwarder()
        self._positions: dict[str, Position] = {}

    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """Add the ids whose decision the message asks about."""
        if isinstance(message, Transfer | Inquiry) and message.id not in self.state.settled:
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
        return decide(self, sender, n, message, now)

    def decline(self, sender: Sender, n: int, message: AnyMessage, fault: Fault) -> Collection[Effect]:
        """Not taken on now."""
        return (Effect(sender.address, n, fault),) if isinstance(message, Transfer) else ()

    # --- a request -------------------------------------------------------------------------------------------------

    def _transfer(self, sender: Sender, n: int, message: Transfer, now: Now) -> Step:
        """Begin two-phase commit, join what runs already, or answer from the record (P1, P7)."""
        answer = self._refuse_service()
        if answer is not None:
            return _told(sender, n, answer)
        legs = message.legs
        try:
            check_legs(legs)
        except InvalidInput as error:
            return _told(sender, n, fault_of(error))
        names = branches_of(legs)
        if len(names) == 1:
            fault = self.directory.unavailable(names)
            if fault is not None:
                return _told(sender, n, fault)
            return self._forwarder.forward(sender, n, message, names[0], now)
        digest = content_digest(legs, message.currency, message.memo, message.effective_on)
        running = self._attempts.get(message.id) or self._finisher.get(message.id)
        if running is not None:
            return self._join(sender, n, running, digest)
        settled = self.state.settled.get(message.id)
        if settled is not None:
            return _told(sender, n, replay(settled, digest, sender.caller))
        fault = self.directory.unavailable(names) or self._busy()
        if fault is not None:
            return _told(sender, n, fault)
        content = Content(legs, message.currency, message.memo, message.effective_on, digest, sender.caller)
        attempt = new_attempt(message, content, self._new_txn(), (sender.address, n), now.mono_us)
        self._attempts[message.id] = attempt
        return Step(None, self._send_prepares(attempt, now))

    def _join(self, sender: Sender, n: int, running: Attempt | Finishing, digest: bytes) -> Step:
        """The same transfer asked for again while it runs: one run, all askers told."""
        content = running.content if isinstance(running, Attempt) else running.decision.content
        if content.digest != digest or content.caller != sender.caller:
            return _told(sender, n, CONFLICTING_ID)
        if (sender.address, n) not in running.waiters:
            running.waiters.append((sender.address, n))
        return NOTHING

    def _refuse_service(self) -> Fault | None:
        behind = self.directory.behind
        return Fault(code="out_of_office", detail=behind) if behind else None

    def _busy(self) -> Fault | None:
        if len(self._attempts) + len(self._finisher) < MAX_IN_FLIGHT:
            return None
        detail = "the coordinator has its hands full: send the same id again in a moment"
        return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)

    def _forwarded(self, sender: Sender, n: int, message: Outcome | Fault, now: Now) -> Step:
        return self._forwarder.answered(n, message)

    def _new_txn(self) -> Txn:
        self.last_n += 1
        return Txn(self.state.name, self.state.epoch, self.last_n)

    def _send_prepares(self, attempt: Attempt, now: Now) -> list[Effect]:
        attempt.next_us = now.mono_us + RESEND_US
        prepare = attempt.prepare
        return [Effect(branch, 0, prepare) for branch in attempt.to_ask()]

    # --- votes -----------------------------------------------------------------------------------------------------

    def _position(self, sender: Sender, n: int, message: Position, now: Now) -> Step:
        self._positions[sender.caller] = message
        return NOTHING

    def _vote(self, sender: Sender, n: int, message: Vote, now: Now) -> Step:
        """Count a vote; the last yes decides, anything else ends the attempt one way or another (P3, P6)."""
        if message.answer == STALE and message.txn.epoch == self.state.epoch:
            raise FenceLost(f"branch {sender.caller} knows a newer epoch of coordinator {self.state.name}: leaving")
        attempt = self._attempts.get(message.id)
        if (
            attempt is None
            or attempt.txn != message.txn
            or attempt.phase != COLLECTING
            or sender.caller not in attempt.branches
        ):
            return NOTHING  # a late or repeated vote; whoever is in doubt by it inquires
        return _VOTED.get(message.answer, Coordinator._voted_busy)(self, attempt, sender.caller, message, now)

    def _voted_yes(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        position = self._positions.get(branch)
        epoch, turn_us = (position.epoch, position.turn_us) if position else (0, 0)
        attempt.votes[branch] = BranchVote(branch, epoch, vote.seq, now.mono_us - attempt.request_us, turn_us)
        attempt.number = max(attempt.number, vote.number)
        if len(attempt.votes) < len(attempt.branches):
            first = attempt.home_first and branch == attempt.home
            return Step(None, self._send_prepares(attempt, now)) if first else NOTHING
        return self._decide_commit(attempt, now)

    def _decide_commit(self, attempt: Attempt, now: Now) -> Step:
        """The line of no return: from the force of this record on, the transfer is done (P5)."""
        state = self.state
        number = max(state.number, attempt.number) + 1
        id = attempt.transfer.id
        votes = tuple(attempt.votes.values())
        record = Decided(id, attempt.txn, number, attempt.content, votes, now.mono_us - attempt.request_us)
        del self._attempts[id]
        decision = OpenDecision(id, attempt.txn, number, attempt.content, state.seq + 1)
        return Step(record, self._finisher.begin(decision, attempt.waiters, attempt.request_us, now))

    def _voted_refused(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        assert vote.refusal is not None
        return self._refuse(attempt, vote.refusal, now, settled_at_home=vote.final and branch == attempt.home)

    def _refuse(self, attempt: Attempt, refusal: Refusal, now: Now, *, settled_at_home: bool) -> Step:
        """Abort with an outcome. It is told once the home branch has it forced (P6)."""
        others = [branch for branch in attempt.branches if branch != attempt.home]
        effects = [Effect(branch, 0, Abort(attempt.txn, attempt.transfer.id)) for branch in others]
        if settled_at_home:
            effects += self._tell(attempt, Outcome(attempt.transfer.id, ABORTED, refusal, 0, 0, False, True))
            return Step(None, effects)
        attempt.phase = ABORTING
        attempt.refusal = refusal
        effects.append(self._abort_at_home(attempt, now))
        return Step(None, effects)

    def _abort_at_home(self, attempt: Attempt, now: Now) -> Effect:
        attempt.next_us = now.mono_us + RESEND_US
        content = attempt.content
        abort = Abort(attempt.txn, attempt.transfer.id, attempt.refusal, content.digest, content.caller)
        return Effect(attempt.home, 0, abort)

    def _voted_known(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        outcome = vote.outcome
        assert outcome is not None
        if outcome.status == ABORTED and branch != attempt.home:
            assert outcome.refusal is not None
            return self._refuse(attempt, outcome.refusal, now, settled_at_home=False)
        return Step(None, self._give_up(attempt, outcome))

    def _voted_occupied(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        other = vote.other
        assert other is not None
        if other.coordinator == self.state.name:
            # An attempt of mine from before: dead, or I would have joined it.
            void = Effect(branch, 0, Abort(other, attempt.transfer.id))
            return Step(None, (void, Effect(branch, 0, attempt.prepare)))
        if branch != attempt.home:
            return NOTHING  # asked again until the deadline
        return self._try_later(attempt, now)

    def _try_later(self, attempt: Attempt, now: Now) -> Step:
        """This txn is void; the id may be tried under the next one."""
        effects = self._aborts(attempt)
        attempt.phase = WAITING
        attempt.votes = {}
        attempt.number = 0
        attempt.home_first = True
        attempt.next_us = now.mono_us + RETRY_US
        return Step(None, effects)

    def _voted_void(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return self._try_later(attempt, now)

    def _voted_conflict(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return Step(None, self._give_up(attempt, CONFLICTING_ID))

    def _voted_busy(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        if vote.answer == STORAGE_FULL:
            detail = f"branch {branch} has no room on its disk: not done; send the same id again when there is room"
            return Step(None, self._give_up(attempt, Fault(code=STORAGE_FULL, detail=detail)))
        detail = f"branch {branch} has its hands full: not done; send the same id again in a moment"
        return Step(None, self._give_up(attempt, Fault(code=BUSY, detail=detail, retry_after_ms=BUSY_RETRY_MS)))

    def _aborts(self, attempt: Attempt) -> list[Effect]:
        return [Effect(branch, 0, Abort(attempt.txn, attempt.transfer.id)) for branch in attempt.branches]

    def _give_up(self, attempt: Attempt, answer: AnyMessage) -> list[Effect]:
        """End an attempt without giving the id an outcome. An Abort that gets lost is made up for by inquiry."""
        aborts = self._aborts(attempt) if attempt.phase == COLLECTING else []
        return aborts + self._tell(attempt, answer)

    def _tell(self, attempt: Attempt, answer: AnyMessage) -> list[Effect]:
        del self._attempts[attempt.transfer.id]
        return [Effect(address, n, answer) for address, n in attempt.waiters]

    # --- acks ------------------------------------------------------------------------------------------------------

    def _ack(self, sender: Sender, n: int, message: Ack, now: Now) -> Step:
        """A branch has applied a commit, or voided a txn."""
        finishing = self._finisher.get(message.id)
        if finishing is not None and finishing.decision.txn == message.txn:
            return self._finisher.acked(finishing, sender.caller, self._positions.get(sender.caller), now)
        attempt = self._attempts.get(message.id)
        if attempt is not None and attempt.txn == message.txn and attempt.phase == ABORTING:
            return self._abort_acked(attempt, sender.caller, message, now)
        return NOTHING

    def _abort_acked(self, attempt: Attempt, branch: str, ack: Ack, now: Now) -> Step:
        if branch != attempt.home:
            return NOTHING
        if ack.outcome is not None:
            return Step(None, self._tell(attempt, ack.outcome))
        if ack.other is not None and ack.other.coordinator == self.state.name:  # a dead attempt of mine
            return Step(None, (Effect(branch, 0, Abort(ack.other, ack.id)), self._abort_at_home(attempt, now)))
        if ack.other is None:
            return Step(None, self._tell(attempt, CONFLICTING_ID))
        return NOTHING  # another coordinator's txn holds the id: asked again until the deadline

    def _inquiry(self, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        """A branch is in doubt. Commit from the record; abort only for what surely was never decided (P5, P11)."""
        txn, id = message.txn, message.id
        attempt = self._attempts.get(id)
        settled = self.state.settled.get(id)
        answer: AnyMessage
        if settled is not None and settled.txn == txn:
            answer = Commit(txn, id, settled.number)
        elif (
            txn.coordinator != self.state.name
            or txn.epoch > self.state.epoch
            or self.directory.behind
            or (attempt is not None and attempt.txn == txn and attempt.phase == COLLECTING)
        ):
            answer = StillPending(txn, id)
        elif attempt is not None and attempt.phase == ABORTING and sender.caller == attempt.home:
            return Step(None, (self._abort_at_home(attempt, now),))
        else:
            answer = Abort(txn, id)
        return Step(None, (Effect(sender.address, n, answer),))

    # --- the directory and time ------------------------------------------------------------------------------

    def _register(self, sender: Sender, n: int, message: Register, now: Now) -> Step:
        step = self.directory.register(sender, n, message)
        if self.directory.behind:
            self.alarms["behind"] = self.directory.behind
        return step

    def _get_directory(self, sender: Sender, n: int, message: GetDirectory, now: Now) -> Step:
        return _told(sender, n, self.directory.answer())

    def peer_up(self, name: str, now: Now) -> Collection[Effect]:
        """A branch is there (again): send what it has not answered."""
        self.directory.up.add(name)
        effects = self._finisher.for_branch(name)
        for attempt in self._attempts.values():
            if attempt.phase == COLLECTING and name in attempt.to_ask():
                effects.append(Effect(name, 0, attempt.prepare))
            elif attempt.phase == ABORTING and name == attempt.home:
                effects.append(self._abort_at_home(attempt, now))
        return effects

    def peer_down(self, name: str) -> None:
        """A branch is silent: new transfers with it are refused as branch_unavailable."""
        self.directory.up.discard(name)

    def tick(self, now: Now) -> Step:
        """Send again, give up, tell late, end."""
        effects: list[Effect] = []
        for attempt in list(self._attempts.values()):
            if now.mono_us >= min(attempt.next_us, attempt.deadline_us):
                effects += self._attempt_due(attempt, now)
        effects += self._finisher.due(self.directory.up, now)
        self._forwarder.forget(now)
        return Step(self._finisher.end(), effects)

    def _attempt_due(self, attempt: Attempt, now: Now) -> list[Effect]:
        if now.mono_us >= attempt.deadline_us:
            missing = [attempt.home] if attempt.phase == ABORTING else attempt.to_ask()
            detail = f"no answer from {', '.join(missing)} in time: not done, or not known; send the same id again"
            return self._give_up(attempt, Fault(code="branch_unavailable", detail=detail))
        if attempt.phase == ABORTING:
            return [self._abort_at_home(attempt, now)]
        if attempt.phase == WAITING:
            attempt.phase = COLLECTING
            attempt.txn = self._new_txn()
        return self._send_prepares(attempt, now)

    def resume(self, now: Now) -> None:
        """Pick up the decisions of the restored state that are not acked by all; they leave as branches register."""
        for decision in self.state.open.values():
            self._finisher.begin(decision, [], -1, now)

    def status(self, about: About, now: Now) -> StatusInfo:
        """How this coordinator does."""
        state = self.state
        return StatusInfo(
            role=COORDINATOR,
            name=state.name,
            cluster=about.cluster,
            instance=about.instance,
            epoch=state.epoch,
            seq=state.seq,
            number=state.number,
            uptime_us=about.uptime_us,
            accounts=-1,
            total_minor=0,
            clearing_minor=0,
            unposted=state.unposted,
            in_flight=len(self._attempts) + len(self._finisher),
            in_doubt=(),
            journal_bytes=about.journal_bytes,
            alarms=tuple(self.alarms.values()),
            version=about.version,
        )


def _told(sender: Sender, n: int, answer: AnyMessage) -> Step:
    return Step(None, (Effect(sender.address, n, answer),))


_VOTED: dict[str, Callable[[Coordinator, Attempt, str, Vote, Now], Step]] = {
    YES: Coordinator._voted_yes,
    REFUSED: Coordinator._voted_refused,
    KNOWN: Coordinator._voted_known,
    OCCUPIED: Coordinator._voted_occupied,
    VOID: Coordinator._voted_void,
    CONFLICT: Coordinator._voted_conflict,
    BUSY: Coordinator._voted_busy,
    STORAGE_FULL: Coordinator._voted_busy,
}

_DECIDE: dict[type[AnyMessage], Callable[[Coordinator, Sender, int, Any, Now], Step]] = {
    Transfer: Coordinator._transfer,
    Vote: Coordinator._vote,
    Ack: Coordinator._ack,
    Position: Coordinator._position,
    Inquiry: Coordinator._inquiry,
    Register: Coordinator._register,
    GetDirectory: Coordinator._get_directory,
    Outcome: Coordinator._forwarded,
    Fault: Coordinator._forwarded,
}
