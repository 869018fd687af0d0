"""What waits to be decided, served in turns: each owner's messages in their order, and no owner at the others' cost.

An owner is a key, however many connections it has; without keys it is a connection. Actors are owners as well.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from zbank.protocol.machine import Address
from zbank.protocol.messages import AnyMessage, GetEntries, GetEvents, ListAccounts, ListTransfers
from zbank.transport.engine import Incoming

SHARE = 16  #: cost that one owner has served before the next one's turn comes
ACTOR_SHARE = 128  #: an actor brings the work of many
HEAVY = 256  #: cost; who has more waiting is served half as much while others wait
MAX_WAITING = 16_384  #: cost, of one owner
FULL = 65_536  #: messages of all; then nothing more is taken in
PAGE_COST = 8
ROWS_A_COST = 16  #: rows of a page that cost as much as an ordinary message
SEARCH_COST = 64


def cost_of(message: AnyMessage) -> int:
    """What it takes to serve a message, in ordinary ones."""
    if isinstance(message, ListAccounts | ListTransfers | GetEntries | GetEvents):
        is_search = isinstance(message, ListAccounts) and (message.search or message.status)
        return (SEARCH_COST if is_search else PAGE_COST) + message.limit // ROWS_A_COST
    return 1


class _Line:
    """What waits of one owner."""

    __slots__ = ("cost", "debt", "messages")

    def __init__(self) -> None:
        self.messages: deque[Incoming] = deque()
        self.cost = 0  #: of all of them
        self.debt = 0  #: cost that was served beyond a share: paid from the next ones


class FairQueue:
    """Messages of many owners."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()  #: who comes first is served first
        self.waiting = 0

    def has_room(self, owner: Hashable) -> bool:
        """May this owner add a message?"""
        line = self._lines.get(owner)
        return line is None or line.cost < MAX_WAITING

    def has_any(self, owner: Hashable) -> bool:
        """Does anything of this owner wait?"""
        return owner in self._lines

    def add(self, owner: Hashable, incoming: Incoming) -> None:
        """Put a message behind the owner's others."""
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = _Line()
        line.messages.append(incoming)
        line.cost += cost_of(incoming[2])
        self.waiting += 1

    def forget(self, owner: Hashable, address: Address) -> None:
        """Whoever is at this address has gone: nobody would hear the answers."""
        line = self._lines.get(owner)
        if line is None:
            return
        self.waiting -= len(line.messages)
        line.messages = deque(one for one in line.messages if one[0].address != address)
        line.cost = sum(cost_of(message) for _, _, message in line.messages)
        self.waiting += len(line.messages)
        if not line.messages:
            del self._lines[owner]

    def take(self, limit: int, actors: frozenset[Hashable] = frozenset()) -> list[Incoming]:
        """The next turn: shares of all owners, again and again, up to the limit.

        While somebody has very much waiting the turn ends as soon as another owner has nothing left: else that one's next
        message would wait for all that the heavy one has sent.
        """
        taken: list[Incoming] = []
        cost = 0
        while self._lines and cost < limit:
            is_heavy, is_dry = False, False
            for owner in list(self._lines):
                line = self._lines[owner]
                heavy = line.cost > HEAVY and owner not in actors
                share = ACTOR_SHARE if owner in actors else SHARE // 2 if heavy else SHARE
                cost += _serve(line, min(share, limit - cost), taken)
                is_heavy = is_heavy or heavy
                if line.messages:
                    self._lines.move_to_end(owner)
                else:
                    is_dry = True
                    del self._lines[owner]
                if cost >= limit:
                    break
            if is_heavy and is_dry:
                break
        self.waiting -= len(taken)
        return taken


def _serve(line: _Line, share: int, taken: list[Incoming]) -> int:
    """Take an owner's share; gives its cost. Who owes more than the share is passed over."""
    cost = owed = line.debt
    messages = line.messages
    while messages and cost < share:
        incoming = messages.popleft()
        taken.append(incoming)
        cost += cost_of(incoming[2])
    line.cost -= cost - owed
    line.debt = max(0, cost - share)
    return cost - owed
