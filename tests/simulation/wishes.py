"""What the customers want: transfers, accounts, tokens, lists, and what goes wrong with ids.

A wish is made from the seed and its number alone, so that one can be left out and all others stay as they are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.simulation.judge import Key
from tests.simulation.site import WALL_START_US
from tests.simulation.swarm import SECOND_US
from tests.simulation.world import World
from zbank.domain.legs import CASH, Leg, branches_of, content_digest, home_branch
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    FAR_US,
    PENDING,
    AnyMessage,
    Cancel,
    ChangeAccount,
    GetAccount,
    GetEntries,
    GetEvents,
    GetFigures,
    GetStatus,
    GetTokens,
    GetTransfer,
    ListAccounts,
    ListTransfers,
    MakeToken,
    OpenAccount,
    RevokeToken,
    Transfer,
)

NUMBERS = ("1001", "1002", "1003")
CURRENCY = "INR"
OVERDRAFT_MINOR = 50  #: what some accounts may be overdrawn by
CALLERS = ("", "", "asha", "bela")  #: in whose names customers speak
TOKENS = 4  #: different ones that are asked for at each coordinator
FIRST_TOKEN = 2_000_000  #: wishes have smaller numbers

Write = Transfer | Cancel | OpenAccount | ChangeAccount | MakeToken | RevokeToken  #: asked for until it is told
Owned = Transfer | Cancel | OpenAccount | ChangeAccount  #: what a caller uses an id for, at branches


class Wish(Struct):
    """Something that a customer wants."""

    n: int
    at_us: int  #: after the beginning
    message: AnyMessage
    doors: Sequence[str]  #: who can do it
    home: str
    digest: bytes = b""
    late: tuple[int, ...] = ()  #: how long after it was told it is sent once more
    attempts: int = 0
    is_over: bool = False  #: told, or asked in vain

    @property
    def key(self) -> Key:
        """Of a transfer: what its outcome is about."""
        assert isinstance(self.message, Transfer)
        return self.message.id, self.digest, self.message.caller

    @property
    def use(self) -> tuple[bytes, str]:
        """What an id is used for: a content by a caller; cancels settle any content."""
        assert isinstance(self.message, Owned)
        return self.digest, self.message.caller


class Planner:
    """Makes wishes."""

    def __init__(self, world: World) -> None:
        self._world = world
        is_busy = world.chance.unit("many tokens") < 0.2
        self._tokens = 0.3 if is_busy else 0.03  #: the share of wishes that are about tokens

    def plan(self, n: int) -> Wish:
        """The nth wish."""
        chance = self._world.chance.random("wish", n)
        at_us = self._world.swarm.moment_us(chance)
        if chance.random() < self._tokens:
            return self._token_wish(n, at_us, chance)
        act = chance.random()
        if act < 0.67:
            return self._wish_for(n, at_us, self._transfer(chance, id_of(n)), chance)
        if act < 0.77:
            return self._account_wish(n, at_us, chance)
        if act < 0.85:
            return self._question(n, at_us, chance)
        return self._again(n, at_us, chance)

    def _wish_for(self, n: int, at_us: int, message: Transfer, chance: random.Random) -> Wish:
        branches = branches_of(message.legs)
        doors = [*self._world.swarm.coordinators, *(branches * 2 if len(branches) == 1 else ())]
        late = tuple(chance.randint(1, 15) * SECOND_US // 2 for _ in range(chance.choice((0, 0, 1, 2))))
        digest = content_digest(message.legs, message.currency, message.memo, message.effective_on)
        return Wish(n, at_us, message, doors, home_branch(message.legs), digest, late)

    def _transfer(self, chance: random.Random, id: bytes) -> Transfer:
        swarm = self._world.swarm
        count = chance.choice((1, 2, 2, 2, 3))
        names = chance.sample(swarm.branches, min(count, len(swarm.branches)))
        numbers = NUMBERS[:2] if swarm.is_crowded else NUMBERS
        places = [(branch, number) for branch in names for number in numbers]
        if chance.random() < 0.1:
            places.append((names[0], CASH))
        if chance.random() < 0.03:
            places.append((names[-1], "4711"))  # nobody's
        legs: list[Leg] = []
        payers = chance.sample(places, min(chance.choice((1, 1, 1, 2)), len(places) - 1))
        for branch, number in payers:
            legs.append(Leg(branch, number, -chance.randint(1, swarm.balance_minor // 2)))
        others = [place for place in places if place not in payers]
        takers = chance.sample(others, min(len(others), chance.choice((1, 1, 2))))
        rest = -sum(leg.amount_minor for leg in legs)
        for branch, number in takers[1:]:
            share = chance.randint(0, rest)
            rest -= share
            legs.append(Leg(branch, number, share))
        if rest > 1 and chance.random() < 0.1:  # two legs on one account
            legs.append(Leg(*takers[0], 1))
            rest -= 1
        legs.append(Leg(*takers[0], rest))
        legs = [leg for leg in legs if leg.amount_minor]
        return Transfer(id, tuple(legs), CURRENCY, chance.choice(("", "", "rent")), "", chance.choice(CALLERS))

    # --- ids that are used again ---------------------------------------------------------------------------------------

    def _again(self, n: int, at_us: int, chance: random.Random) -> Wish:
        """Cancel an earlier transfer, use its id for another one, or ask for the same in another's name (T6)."""
        earlier = chance.randrange(max(0, n - 6), n + 1)
        first = self.plan(earlier) if earlier < n else None
        if first is None or not isinstance(first.message, Transfer | OpenAccount | ChangeAccount):
            return self._wish_for(n, at_us, self._transfer(chance, id_of(n)), chance)
        at_us = min(self._world.swarm.fault_us, first.at_us + int(chance.expovariate(1 / 600_000)))
        caller = first.message.caller
        other = chance.choice([name for name in CALLERS if name != caller])
        if not isinstance(first.message, Transfer):
            return Wish(n, at_us, replace(first.message, caller=other), first.doors, first.home, first.digest)
        act = chance.random()
        if act < 0.45:
            cancel = Cancel(first.message.id, caller if act < 0.35 else other)
            return Wish(n, at_us, cancel, (first.home,), first.home)
        if act < 0.7:
            return self._wish_for(n, at_us, replace(first.message, caller=other), chance)
        transfer = self._transfer(chance, first.message.id)
        return self._wish_for(n, at_us, replace(transfer, caller=caller) if act < 0.9 else transfer, chance)

    # --- accounts, tokens, questions -----------------------------------------------------------------------------------

    def _account_wish(self, n: int, at_us: int, chance: random.Random) -> Wish:
        branch = chance.choice(self._world.swarm.branches)
        caller = chance.choice(CALLERS)
        if chance.random() < 0.2:
            number = chance.choice(("", "", "2001", "2002"))
            return Wish(n, at_us, OpenAccount(id_of(n), number, "A. Customer", "", 0, caller), (branch,), branch)
        status = chance.choice(("", "open", "open", "frozen"))
        limit_minor = chance.choice((-1, 0, 0, OVERDRAFT_MINOR))
        change = ChangeAccount(id_of(n), chance.choice(NUMBERS), status, limit_minor, caller)
        return Wish(n, at_us, change, (branch,), branch)

    def _token_wish(self, n: int, at_us: int, chance: random.Random) -> Wish:
        """Of the same few tokens, so that they are made and revoked again and again, and late."""
        door = chance.choice(self._world.swarm.coordinators)
        place = self._world.swarm.coordinators.index(door)
        slot = chance.randrange(TOKENS)
        id = id_of(FIRST_TOKEN + 100 * place + slot)
        caller = ("asha", "bela")[slot % 2]
        if chance.random() < 0.45:
            return Wish(n, at_us, RevokeToken(id, caller), (door,), door)
        if chance.random() < 0.1:
            caller = "" if slot % 3 else "chandra"
        accounts = () if slot % 2 else ("Mumbai/1001", "Delhi/1002")
        role = "teller" if slot % 2 else "customer"
        message = MakeToken(id, caller, f"holder {slot}", role, accounts, sha256(id).digest(), 0)
        late = tuple(chance.randint(1, 15) * SECOND_US // 2 for _ in range(chance.choice((0, 1, 2))))
        return Wish(n, at_us, message, (door,), door, late=late)

    def _question(self, n: int, at_us: int, chance: random.Random) -> Wish:
        swarm = self._world.swarm
        branch = chance.choice(swarm.branches)
        number = chance.choice(NUMBERS)
        events = GetEvents(chance.choice((-1, 0, 0, 5, 20, 60, 10_000)), chance.choice((3, 10, 40, 1000)))
        questions: list[tuple[AnyMessage, Sequence[str]]] = [
            (GetAccount(number), (branch,)),
            (GetStatus(), (branch,)),
            (ListAccounts("", 10), (branch,)),
            (GetEntries(number, True, "", 5, *self._span(chance)), (branch,)),
            (GetTransfer(id_of(chance.randrange(n + 1))), (branch,)),
            (self._list(chance), (branch,)),
            (self._list(chance), (branch,)),
            (events, (branch,)),
            (events, swarm.coordinators),
            (GetFigures(), (branch, *swarm.coordinators)),
            (GetTokens(chance.choice((-1, -1, 0, 5, 20)), 0), swarm.coordinators),
            (GetTokens(-1, 0), swarm.coordinators),
        ]
        message, doors = chance.choice(questions)
        door = chance.choice(doors)
        return Wish(n, at_us, message, (door,), door)

    def _list(self, chance: random.Random) -> ListTransfers:
        number = chance.choice(("", "", *NUMBERS[:2], CASH))
        status = chance.choice(("", "", COMMITTED, ABORTED, PENDING))
        limit = chance.choice((1, 3, 10, 1000))
        return ListTransfers(number, status, chance.random() < 0.5, *self._span(chance), "", limit)

    def _span(self, chance: random.Random) -> tuple[int, int]:
        if chance.random() < 0.6:
            return 0, FAR_US
        at_us = WALL_START_US + self._world.begin_us + chance.randint(0, self._world.swarm.fault_us)
        return chance.choice(((at_us, FAR_US), (0, at_us), (at_us - 3 * SECOND_US, at_us)))


def id_of(n: int) -> bytes:
    """The id of the nth wish."""
    return (n + 1).to_bytes(16, "big")


def opening(branch: str, balance_minor: int) -> list[Any]:
    """What makes the accounts that a run begins with."""
    requests: list[AnyMessage] = []
    for place, number in enumerate(NUMBERS):
        base = 1_000_000 + 10 * place
        legs = (Leg(branch, CASH, -balance_minor), Leg(branch, number, balance_minor))
        requests.append(OpenAccount(id_of(base), number, "A. Customer", CURRENCY, place * OVERDRAFT_MINOR))
        requests.append(Transfer(id_of(base + 1 + 1000 * sum(branch.encode())), legs, CURRENCY))
    return requests
