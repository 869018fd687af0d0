"""What must hold of the bank at every moment, judged record by record, message by message and answer by answer.

Nothing of the actors is trusted: the judge knows what was forced, what left a process and what a customer was told, and
compares the three with each other and with the actors' memory. A breach is a `Violation`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.simulation.ledger import Ledger, Office
from tests.simulation.violation import breach
from tests.simulation.witness import Witness
from zbank.domain.legs import CLEARING, SYSTEM_NUMBERS, branches_of
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Row
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    REFUSED,
    YES,
    Abort,
    AccountInfo,
    Ack,
    AnyMessage,
    Commit,
    Fault,
    Opened,
    Outcome,
    StatusInfo,
    StillPending,
    Txn,
    Vote,
)
from zbank.protocol.records import (
    Aborted,
    AnyRecord,
    Committed,
    Content,
    Decided,
    Executed,
    Prepared,
    Refused,
)
from zbank.storage.sqlite import JournalStore

Final = tuple[str, str, int]  #: status, refusal code, commit number: what of an outcome never changes
Key = tuple[bytes, bytes, str]  #: (id, digest of the content, caller): what an outcome is about


class Judge:
    """The whole bank, as seen from outside all actors."""

    def __init__(self, branches: Iterable[str], coordinators: Iterable[str]) -> None:
        self.ledgers = {name: Ledger(name) for name in branches}
        self.offices = {name: Office(name) for name in coordinators}
        self.actors = {*self.ledgers, *self.offices}
        self.positions: dict[str, tuple[int, bytes]] = {}  #: by actor: the last forced row's seq and chain value
        self.decided: dict[Txn, Decided] = {}
        self.contents: dict[Key, Content] = {}  #: of what was executed
        self.told: dict[Key, Final] = {}
        self._told_at_home: dict[tuple[str, bytes], Final] = {}  #: by (home, id): to whoever asked, a cancel too
        self._told_changes: dict[bytes, str] = {}  #: by id of an account request: status, or refusal code
        self.sometimes: Counter[str] = Counter()
        self.replaced: set[str] = set()  #: actors of which an older process is still there
        self.witness = Witness(self.ledgers, self.offices, self.sometimes, self.replaced)
        self._fates: dict[Txn, str] = {}
        self._executed_by: dict[Key, object] = {}  #: txn, or the branch of a local transfer
        self._bound: dict[tuple[str, bytes], tuple[bytes, str]] = {}  #: (branch, id) → content and caller it executed
        self._prepared: dict[tuple[str, Txn], int] = {}  #: the branch's commit number when it voted
        self._freed: set[tuple[str, Txn]] = set()  #: committed or voided there

    # --- what is forced ------------------------------------------------------------------------------------------------

    def forced(self, actor: str, rows: Sequence[Row]) -> None:
        """These rows are on the actor's disk."""
        for row in rows:
            with breach("a journal grows row by row"):
                assert row.seq == self.positions.get(actor, (0, b""))[0] + 1, f"row {row.seq} of {actor}"
            self.positions[actor] = row.seq, row.chain
            record = decode_record(row.body)
            with breach("a journal makes sense"):
                (self.ledgers.get(actor) or self.offices[actor]).enter(record)
                self.witness.entered(actor, row, record)
            with breach("no two actors differ, and nothing is done twice"):
                self._judge(actor, record)

    def _judge(self, actor: str, record: AnyRecord) -> None:
        match record:
            case Decided():
                self.decided[record.txn] = record
                self._fate(actor, record.txn, COMMITTED)
                branches = branches_of(record.content.legs)
                self._execute(branches, record.id, record.content, record.txn)
                for branch in branches:
                    assert (branch, record.txn) in self._prepared, f"{record.txn} is decided and {branch} has not voted"
                    number = self._prepared[branch, record.txn]
                    assert record.number > number, f"{record.txn} is commit {record.number}, {branch} was at {number}"
            case Executed():
                self._execute((actor,), record.id, record.content, actor)
            case Prepared():
                self._prepared[actor, record.txn] = self.ledgers[actor].number
            case Committed():
                assert record.txn in self.decided, f"{actor} commits {record.txn}, which nobody decided"
                self._fate(actor, record.txn, COMMITTED)
                self._freed.add((actor, record.txn))
            case Aborted():
                self._fate(actor, record.txn, ABORTED)
                self._freed.add((actor, record.txn))
                if record.refusal is not None:
                    self._not_executed(actor, record.id, record.digest)
            case Refused():
                self._not_executed(actor, record.id, record.digest)

    def _fate(self, actor: str, txn: Txn, fate: str) -> None:
        known = self._fates.setdefault(txn, fate)
        assert known == fate, f"{txn} is {known} elsewhere and {fate} at {actor}"

    def _execute(self, branches: Iterable[str], id: bytes, content: Content, by: object) -> None:
        owner = content.digest, content.caller
        key = (id, *owner)
        known = self._executed_by.setdefault(key, by)
        assert known == by, f"{id.hex()} is executed by {known} and again by {by}"
        told = self.told.get(key, (COMMITTED,))[0]
        assert told == COMMITTED, f"{id.hex()} was told {told} and is executed by {by}"
        self.contents[key] = content
        for branch in branches:  # an id stands for one content of one caller at each branch it has met
            bound = self._bound.setdefault((branch, id), owner)
            assert bound == owner, f"{id.hex()} is executed at {branch} with two contents, or for two callers"

    def _not_executed(self, actor: str, id: bytes, digest: bytes) -> None:
        bound = self._bound.get((actor, id))
        assert bound is None or digest not in (bound[0], b""), f"{actor} refuses {id.hex()}, which is executed"

    # --- what leaves a process -----------------------------------------------------------------------------------------

    def sent(self, actor: str, messages: Iterable[AnyMessage]) -> None:
        """These messages leave: what they say must be on disk already."""
        with breach("nothing leaves before what it says is forced"):
            for message in messages:
                self._reached(actor, message)
                self.witness.sent(actor, message)
                match message:
                    case Vote(answer=answer, txn=txn) if answer == YES:
                        assert (actor, txn) in self._prepared, f"{actor} votes yes for {txn} without its row"
                    case Vote(answer=answer, id=id, final=True) if answer == REFUSED:
                        assert self.ledgers[actor].outcomes.get(id) == ABORTED, (
                            f"{actor} has no tombstone of {id.hex()}"
                        )
                    case Commit(txn=txn):
                        assert txn in self.decided, f"{actor} says commit of {txn}, which is not decided"
                    case Abort(txn=txn):
                        assert txn not in self.decided, f"{actor} says abort of {txn}, which is decided"
                    case Ack(txn=txn, outcome=None, other=None, id=id):
                        known = (actor, txn) in self._freed or id in self.ledgers[actor].outcomes
                        assert known, f"{actor} acks {txn} without its row"
                    case AccountInfo():
                        self._shown(actor, message)
                    case Opened(account=account):
                        self._shown(actor, account)
                    case StatusInfo():
                        assert message.total_minor == 0, f"{actor} says that its books sum to {message.total_minor}"
                    case Outcome(status=status, id=id) if status in (COMMITTED, ABORTED):
                        self._outcome_leaves(actor, message)

    def _shown(self, branch: str, account: AccountInfo) -> None:
        """An account is shown as it is on disk (T1); one who has lost the office may show an old state, unknowing."""
        if branch in self.replaced:
            return
        found = (account.balance_minor, account.held_minor, account.overdraft_limit_minor, account.status)
        known = self.ledgers[branch].may_show(account.number)
        assert found in known, f"{branch}/{account.number} is shown as {found}, and is {known}"

    def _reached(self, actor: str, message: AnyMessage) -> None:
        """Count what shows that a situation of the protocol was reached."""
        match message:
            case Vote(answer=answer):
                self.sometimes[f"vote {answer}"] += 1
            case Commit() | Abort() | StillPending() if actor in self.ledgers:
                self.sometimes[f"a participant answers an inquiry: {type(message).__name__}"] += 1
            case Ack(outcome=Outcome(status=status)) if status == COMMITTED:
                self.sometimes["a late Abort after the commit"] += 1
            case Ack(other=Txn()):
                self.sometimes["an Abort meets another txn of the id"] += 1
            case Outcome(status=status, applied=False) if status == COMMITTED:
                self.sometimes["told committed, still being applied"] += 1
            case Outcome(status=status):
                self.sometimes[f"told {status}"] += 1
            case Fault(code=code):
                self.sometimes[f"fault {code}"] += 1

    def _outcome_leaves(self, actor: str, outcome: Outcome) -> None:
        ledger = self.ledgers.get(actor)
        if ledger is not None:
            known = ledger.outcomes.get(outcome.id)
            assert known == outcome.status, f"{actor} says {outcome.id.hex()} is {outcome.status}, its journal {known}"
            return
        places = [name for name, other in self.ledgers.items() if other.outcomes.get(outcome.id) == outcome.status]
        decided = any(key[0] == outcome.id for key in self.contents)
        if outcome.status == COMMITTED:
            assert decided, f"{actor} says that {outcome.id.hex()} is committed, and nobody decided it"
        else:
            assert places, f"{actor} says that {outcome.id.hex()} is aborted, and no tombstone of it is forced"

    # --- what customers are told ---------------------------------------------------------------------------------------

    def tell(self, key: Key, home: str, outcome: Outcome) -> bool:
        """A customer got an answer about its transfer; True when it is a final one (P6)."""
        if outcome.status not in (COMMITTED, ABORTED):
            return False
        final = _final(outcome)
        with breach("an outcome told never changes, and is true"):
            known = self.told.setdefault(key, final)
            assert known == final, f"{key[0].hex()} was told {known}, and now {final}"
            self._told_of_id(home, outcome)
            assert (key in self.contents) == (outcome.status == COMMITTED), f"{key[0].hex()} is told {final}: not so"
            if outcome.status == COMMITTED and outcome.applied and self.contents[key]:
                self._applied(key)
            elif outcome.status == ABORTED:
                self._is_for(key, home)
        return True

    def _is_for(self, key: Key, home: str) -> None:
        """Told as aborted: home's tombstone of the id is of this content, or of any, and of this caller (P6, T6)."""
        id, digest, caller = key
        owner = self.ledgers[home].owners.get(id)
        assert owner in ((digest, caller), (b"", caller)), f"{id.hex()} of {caller!r} is told aborted: it is {owner}'s"

    def _applied(self, key: Key) -> None:
        """Told as applied everywhere: every branch has it, so that a read shows it (P10)."""
        by = self._executed_by[key]
        if isinstance(by, Txn):
            missing = [
                branch for branch in branches_of(self.contents[key].legs) if key[0] not in self.ledgers[branch].posted
            ]
            assert not missing, f"{key[0].hex()} is told as applied, and {missing} have not applied it"

    def tell_conflict(self, id: bytes, fault: Fault, *, is_reused: bool) -> None:
        """A customer was told for good that its id stands for something else."""
        with breach("an id stands for something else only when it does"):
            assert fault.code == "idempotency_conflict", f"a sound transfer is answered {fault.code}: {fault.detail}"
            assert is_reused, f"{id.hex()} was used once, and conflicts"

    def tell_cancel(self, home: str, outcome: Outcome, caller: str) -> None:
        """The answer to a cancel in a caller's name, from the branch that was asked."""
        with breach("an outcome told never changes, and is true"):
            assert caller in self.ledgers[home].callers[outcome.id], f"{caller!r} is told {outcome}, which is another's"
            if outcome.status in (COMMITTED, ABORTED):
                known = self.ledgers[home].outcomes.get(outcome.id)
                assert known == outcome.status, f"{outcome} is not so: {known}"
                self._told_of_id(home, outcome)

    def _told_of_id(self, home: str, outcome: Outcome) -> None:
        """Whoever asks, and however: an id has one outcome at its home (P2)."""
        known = self._told_at_home.setdefault((home, outcome.id), _final(outcome))
        assert known == _final(outcome), f"{home}'s {outcome.id.hex()} was told {known}, and now {_final(outcome)}"

    def tell_change(self, id: bytes, home: str, answer: Outcome | Opened, caller: str) -> None:
        """The answer to the opening or the change of an account."""
        is_refused = isinstance(answer, Outcome) and answer.refusal is not None
        with breach("an outcome told never changes, and is true"):
            found = ABORTED if is_refused else COMMITTED
            known = self._told_changes.setdefault(id, found)
            assert known == found, f"the account request {id.hex()} was told {known}, and now {found}"
            outcomes = {ledger.outcomes[id] for ledger in self.ledgers.values() if id in ledger.outcomes}
            assert outcomes == {found}, f"the account request {id.hex()} is told {found}: {outcomes}"
            _, owner = self.ledgers[home].owners[id]
            assert owner == caller, f"the account request {id.hex()} of {owner!r} is told to {caller!r}"

    # --- what is in memory ---------------------------------------------------------------------------------------------

    def compare(self, state: BranchState) -> None:
        """A branch's memory against its forced records: the accounts that changed since the last time."""
        ledger = self.ledgers[state.name]
        with breach("each branch's books sum to zero; no account below its limit; holds = prepared legs"):
            assert state.total_minor == 0, f"{state.name} sums to {state.total_minor}"
            assert state.prepared.keys() == ledger.promises.keys(), f"{state.name} has other promises than its journal"
            assert not (found := list(ledger.overdrawn())), found
            for number in ledger.touched:
                self._compare_account(state, ledger, number)
            assert state.clearing_minor == ledger.lines[CLEARING].balance if CLEARING in ledger.lines else True
            customers = sum(line.balance for number, line in ledger.lines.items() if number not in SYSTEM_NUMBERS)
            assert state.customers_minor == customers, "the sum of the customers' balances"
        ledger.touched.clear()

    def consistent(self, state: BranchState) -> None:
        """The memory of a process that has lost its office, which nothing else can be compared with."""
        with breach("holds = prepared legs"):
            for number, account in state.book.accounts.items():
                held = -sum(min(0, held.amounts.get(number, 0)) for held in state.prepared.values())
                assert account.held_minor == held, (
                    f"{state.name}/{number} holds {account.held_minor}, promised is {held}"
                )

    def _compare_account(self, state: BranchState, ledger: Ledger, number: str) -> None:
        account = state.book.accounts.get(number)
        if account is None:
            return  # posted, and not in memory any more
        line = ledger.lines[number]
        found = (account.balance_minor, account.held_minor, account.incoming_minor, account.overdraft_limit_minor)
        expected = (line.balance, line.held, line.incoming, line.limit)
        assert found == expected, f"{state.name}/{number}: memory has {found}, the journal {expected}"

    def restarted(self, actor: str, store: JournalStore) -> None:
        """An actor reads its disk again: nothing that was forced is gone; what it finds beyond was forced unseen."""
        seq, chain = self.positions.get(actor, (0, b""))
        with breach("what was forced stays"):
            assert store.seq >= seq, f"{actor} had forced row {seq}, and now its journal ends at row {store.seq}"
            row = store.row(seq) if seq else None
            assert row is None or row.chain == chain, f"row {seq} of {actor} is not the one that was forced"
        unseen = [store.row(number) for number in range(seq + 1, store.seq + 1)]
        self.forced(actor, [row for row in unseen if row is not None])

    def recovered(self, state: BranchState, store: JournalStore) -> None:
        """A branch's state after a restart is the fold of its journal from the first record."""
        ledger = self.ledgers[state.name]
        with breach("restart = fold from the first record"):
            assert state.prepared.keys() == ledger.promises.keys(), f"{state.name} lost or found promises"
            for id, promise in ledger.promises.items():
                held = state.prepared[id]
                assert (held.txn, held.amounts) == promise[:2], f"{state.name}: {held} was {promise}"
            posted = {account.number: account for account in store.load_accounts(list(ledger.lines))}
            for number, line in ledger.lines.items():
                account = state.book.accounts.get(number) or posted.get(number)
                assert account is not None, f"{state.name}/{number} is lost"
                found = (account.balance_minor, account.held_minor, account.incoming_minor)
                expected = (line.balance, line.held, line.incoming)
                assert found == expected, f"{state.name}/{number}: {found}, its journal has {expected}"
                assert (account.status, account.overdraft_limit_minor) == (line.status, line.limit)
            marks = {name: (mark.epoch, mark.number) for name, mark in state.coordinators.items()}
            assert marks == ledger.terms, f"{state.name} has seen {marks}, its journal {ledger.terms}"
            assert state.number == ledger.number, (
                f"{state.name} is at commit {state.number}, its journal {ledger.number}"
            )
            settled = {row.id: row.outcome for row in store.load_settled(list(ledger.outcomes))}
            settled |= {id: row.outcome for id, row in state.settled.items()}
            assert settled == ledger.outcomes, f"{state.name} knows other outcomes than its journal"
            void = store.load_tombstones(ledger.void) | state.tombstones
            assert void == ledger.void, f"{state.name} knows other void txns than its journal"

    def recovered_office(self, state: CoordinatorState, store: JournalStore) -> None:
        """The same for a coordinator."""
        office = self.offices[state.name]
        with breach("restart = fold from the first record"):
            found = {id: decision.txn for id, decision in state.open.items()}
            assert found == office.open, f"{state.name} lost or found open decisions"
            assert state.branches == office.branches, f"{state.name} knows other branches than its journal"
            number = max(office.numbers.values(), default=0)
            assert state.number == number, f"{state.name} is at commit {state.number}, its journal at {number}"
            settled = {row.id: row.number for row in store.load_settled(list(office.numbers))}
            settled |= {id: row.number for id, row in state.settled.items() if row.txn is not None}
            assert settled == office.numbers, f"{state.name} knows other decisions than its journal"
            self.witness.recovered(state)

    # --- at rest -------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """After healing: every transfer done everywhere or nowhere, and clearing cancels per transfer."""
        clearing: dict[bytes, int] = defaultdict(int)
        with breach("after healing nothing is in doubt and clearing cancels per transfer"):
            for name, ledger in self.ledgers.items():
                assert not ledger.promises, f"{name} is in doubt"
                for id, sides in ledger.posted.items():
                    clearing[id] += sides.get(CLEARING, 0)
            odd = [id.hex() for id, amount in clearing.items() if amount]
            assert not odd, f"clearing does not cancel for {odd}"
            for (id, *owner), content in self.contents.items():
                for branch in branches_of(content.legs):
                    assert self._bound[branch, id] == tuple(owner)
                    assert id in self.ledgers[branch].posted, f"{id.hex()} is committed and not applied at {branch}"
            executed = {id for id, *_ in self.contents}
            strangers = [id.hex() for id in clearing if id not in executed]
            assert not strangers, f"posted and never executed: {strangers}"


def _final(outcome: Outcome) -> Final:
    return outcome.status, outcome.refusal.code if outcome.refusal else "", outcome.number
