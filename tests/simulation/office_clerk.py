"""A clerk of the bank in `office`: makes and revokes tokens at whoever says that it is the coordinator, and forgets nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.failover_books import Breach
from tests.unit.protocol_support import id_of
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Sender
from zbank.protocol.messages import CLIENT, AnyMessage, MakeToken, RevokeToken, TokenInfo

if TYPE_CHECKING:
    from tests.simulation.office_town import Office
    from tests.simulation.synchronous_process import Process

CLERK = Sender(b"clerk", CLIENT, "asha")
FIRST = 3_000_000  #: of the tokens' ids


class Clerk:
    """Asks again with the same id, as customers do."""

    def __init__(self, town: Office) -> None:
        self._town = town
        self._asked: dict[bytes, MakeToken] = {}
        self._n = 0
        self._revoked: dict[bytes, int] = {}  #: what was told as revoked, and the last question before that
        self._told: dict[bytes, TokenInfo] = {}  #: what was said of it last: it may be revoked, and then is so for good

    def work(self) -> None:
        """A new token, an old one again, or one that is to be good no more."""
        random = self._town.random
        what = random.random()
        if what < 0.5 or not self._asked:
            id = id_of(FIRST + len(self._asked))
            self._asked[id] = MakeToken(id, CLERK.caller, "branch office", "teller", (), id.ljust(32, b"."), 0)
            self._ask(self._asked[id])
        elif what < 0.8:
            self._ask(self._asked[random.choice(list(self._asked))])
        else:
            self._ask(RevokeToken(random.choice(list(self._asked)), CLERK.caller))

    def _ask(self, message: AnyMessage) -> None:
        doors = [process for process in self._town.doors("") if process.is_up]
        if doors:
            self._n += 1
            self._town.request(self._town.random.choice(doors), CLERK, self._n, message)

    def hear(self, process: Process, n: int, message: AnyMessage) -> None:
        """A token as it is now, or as it was when an answer that comes late was made; faults say nothing."""
        if not isinstance(message, TokenInfo):
            return
        before = self._told.setdefault(message.id, message)
        is_late = n <= self._revoked.get(message.id, 0)
        if message.revoked_us:
            self._revoked.setdefault(message.id, self._n)
            self._told[message.id] = message
        same = (before.made_us, before.made_by) == (message.made_us, message.made_by)
        if not same or (before.revoked_us and message.revoked_us != before.revoked_us and not is_late):
            raise Breach(f"{process.key} tells of token {message.id.hex()} another thing than was told before")
        self._town.met["tokens told"] += 1

    def judge(self, state: CoordinatorState) -> None:
        """In the end: all that was told is there."""
        for id, told in self._told.items():
            token = state.tokens.by_id.get(id)
            if not told.revoked_us and (token is None or token.made_us != told.made_us):
                raise Breach(f"token {id.hex()} was told as made, and is not there")
            if told.revoked_us and token is not None and not token.revoked_us:
                raise Breach(f"token {id.hex()} was told as revoked, and is good")
