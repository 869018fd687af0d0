"""What waits to be decided, served in turns: each owner's messages in their order, and no owner at the others' cost.

An owner is a key, however many connections it has; without keys it is a connection. Actors are owners as well.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from zbank.protocol.messages import AnyMessage, GetEvents, ListAccounts, ListTransfers
from zbank.transport.engine import Incoming

SHARE = 16  #: cost that one owner has served before the next one's turn comes
ACTOR_SHARE = 128  #: an actor brings the work of many
HEAVY = 256  #: messages; who has more waiting is served half as much while others wait
MAX_WAITING = 16_384  #: of one owner
FULL = 65_536  #: messages of all; then nothing more is taken in
COSTS: dict[type[AnyMessage], int] = {ListTransfers: 8, GetEvents: 8, ListAccounts: 8}  #: in ordinary messages, about
SEARCH_COST = 64


def cost_of(message: AnyMessage) -> int:
    """What it takes to serve a message, in ordinary ones."""
    if isinstance(message, ListAccounts) and (message.search or message.status):
        return SEARCH_COST
    return COSTS.get(type(message), 1)


class FairQueue:
    """Messages of many owners."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[Incoming]] = OrderedDict()  #: who comes first is served first
        self._debts: dict[Hashable, int] = {}  #: cost that was served beyond a share: paid from the next ones
        self.waiting = 0

    def has_room(self, owner: Hashable) -> bool:
        """May this owner add a message?"""
        queue = self._queues.get(owner)
        return queue is None or len(queue) < MAX_WAITING

    def add(self, owner: Hashable, incoming: Incoming) -> None:
        """Put a message behind the owner's others."""
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = deque()
        queue.append(incoming)
        self.waiting += 1

    def take(self, limit: int, actors: frozenset[Hashable] = frozenset()) -> list[Incoming]:
        """The next turn: shares of all owners, again and again, up to the limit.

        While somebody has very much waiting the turn ends as soon as another owner has nothing left: else that one's next
        message would wait for all that the heavy one has sent.
        """
        taken: list[Incoming] = []
        cost = 0
        while self._queues and cost < limit:
            is_heavy, is_dry = False, False
            for owner in list(self._queues):
                queue = self._queues[owner]
                heavy = len(queue) > HEAVY and owner not in actors
                share = ACTOR_SHARE if owner in actors else SHARE // 2 if heavy else SHARE
                served = self._serve(owner, queue, min(share, limit - cost), taken)
                cost += served
                is_heavy = is_heavy or heavy
                is_dry = is_dry or not queue
                if not queue:
                    del self._queues[owner]
                    self._debts.pop(owner, None)
                else:
                    self._queues.move_to_end(owner)
                if cost >= limit:
                    break
            if is_heavy and is_dry:
                break
        self.waiting -= len(taken)
        return taken

    def _serve(self, owner: Hashable, queue: deque[Incoming], share: int, taken: list[Incoming]) -> int:
        """Take an owner's share; gives its cost. Who owes more than the share is passed over."""
        owed = self._debts.pop(owner, 0)
        cost = owed
        while queue and cost < share:
            incoming = queue.popleft()
            taken.append(incoming)
            cost += cost_of(incoming[2])
        if cost > share:
            self._debts[owner] = cost - share
        return cost - owed
