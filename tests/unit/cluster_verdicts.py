"""What must hold of a whole bank at every moment, judged record by record and answer by answer."""

from __future__ import annotations

from collections.abc import Iterable

from zbank.protocol.messages import ABORTED, COMMITTED, Outcome, Txn
from zbank.protocol.records import Aborted, AnyRecord, Committed, Decided, Executed, Refused


class Verdicts:
    """What was forced anywhere, and what customers were told."""

    def __init__(self) -> None:
        self._fates: dict[Txn, str] = {}  #: committed or aborted, as any actor has it
        self._committed: dict[bytes, Txn | str] = {}  #: by id, the txn or the branch that executed it
        self._executed: set[tuple[str, bytes]] = set()  #: (branch, id)
        self._told: dict[bytes, tuple[str, str, int]] = {}

    def judge(self, actor: str, record: AnyRecord) -> None:
        """A record was forced."""
        match record:
            case Decided(id=id, txn=txn):
                self._fate(txn, COMMITTED)
                self._commit(id, txn)
            case Committed(id=id, txn=txn):
                self._fate(txn, COMMITTED)
                self._commit(id, txn)
                self._execute(actor, id)
            case Executed(id=id):
                self._commit(id, actor)
                self._execute(actor, id)
            case Aborted(id=id, txn=txn, refusal=refusal):
                self._fate(txn, ABORTED)
                assert refusal is None or id not in self._committed, f"{actor} refuses {id.hex()}, which is committed"
            case Refused(id=id):
                assert id not in self._committed, f"{actor} refuses {id.hex()}, which is committed"

    def _fate(self, txn: Txn, fate: str) -> None:
        known = self._fates.setdefault(txn, fate)
        assert known == fate, f"{txn} is {known} at one actor and {fate} at another"

    def _commit(self, id: bytes, by: Txn | str) -> None:
        known = self._committed.setdefault(id, by)
        assert known == by, f"{id.hex()} is executed by {known} and again by {by}"
        assert self._told.get(id, (COMMITTED,))[0] == COMMITTED, f"{id.hex()} was told aborted and is executed"

    def _execute(self, branch: str, id: bytes) -> None:
        assert (branch, id) not in self._executed, f"{branch} executes {id.hex()} twice"
        self._executed.add((branch, id))

    def told(self, outcome: Outcome) -> None:
        """A customer got an answer; a final one never changes (P6)."""
        if outcome.status not in (COMMITTED, ABORTED):
            return
        code = outcome.refusal.code if outcome.refusal else ""
        final = (outcome.status, code, outcome.number)
        known = self._told.setdefault(outcome.id, final)
        assert known == final, f"{outcome.id.hex()} was told {known}, and now {final}"
        is_committed = outcome.id in self._committed
        account_change = outcome.id >= (10**6).to_bytes(16, "big")
        assert account_change or is_committed == (outcome.status == COMMITTED), f"{final} is told, and is not so"

    def untold(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those that no customer knows the outcome of."""
        return [id for id in ids if id not in self._told]

    def is_committed(self, id: bytes) -> bool:
        """Whether the transfer was executed."""
        return id in self._committed
