"""The customers: what they want, whom they ask, how often, and what they do when nobody answers.

A wish is made once, with its id, and asked for until it is told: at one door or two, again after a time, late once more
after it was told, or under the same id with another content.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import zmq
from msgspec import Struct

from tests.simulation.network import SimulatedContext, SimulatedSocket
from tests.simulation.swarm import SECOND_US
from tests.simulation.world import World
from zbank.domain.legs import CASH, Leg, branches_of, content_digest, home_branch
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    CLIENT,
    PROTOCOL_VERSION,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Fault,
    GetAccount,
    GetEntries,
    GetStatus,
    GetTransfer,
    Hello,
    ListAccounts,
    OpenAccount,
    Opened,
    Outcome,
    Transfer,
)

NUMBERS = ("1001", "1002", "1003")
CURRENCY = "INR"
OVERDRAFT_MINOR = 50  #: what some accounts may be overdrawn by
HELLO = Hello(PROTOCOL_VERSION, "demo", CLIENT, "customer")
MAX_ATTEMPTS = 6  #: while there are faults; afterwards it asks until it is told
FINAL_FAULTS = {"idempotency_conflict", "malformed", "invalid_amount"}  #: asking again would not help


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


class Asked(NamedTuple):
    """A request on its way."""

    wish: Wish
    door: str


class Customers:
    """All customers, on one machine, with a connection to each actor."""

    def __init__(self, world: World, endpoints: dict[str, str]) -> None:
        self.name = "customers"
        self.network_stall_us = 0
        self.wishes: list[Wish] = []
        self.answers: Counter[str] = Counter()
        self._world = world
        context = SimulatedContext(world.network, self)
        self._sockets: dict[str, SimulatedSocket] = {}
        for name, endpoint in endpoints.items():
            self._sockets[name] = context.socket(zmq.DEALER)
            self._sockets[name].connect(endpoint)
        self._asked: dict[int, Asked] = {}
        self._contents: dict[bytes, set[bytes]] = defaultdict(set)  #: by transfer id: digests of what it is used for
        self._last = 0
        for n in range(world.swarm.wishes):
            wish = self._plan(n)
            if world.happened("wish", f"wish {n}"):
                self.wishes.append(wish)
                if isinstance(wish.message, Transfer | OpenAccount | ChangeAccount):
                    self._contents[wish.message.id].add(wish.digest)
                world.at(world.begin_us + wish.at_us, lambda wish=wish: self._ask(wish))  # type: ignore[misc]

    # --- what they want ------------------------------------------------------------------------------------------------

    def _plan(self, n: int) -> Wish:
        chance = self._world.chance.random("wish", n)
        at_us = self._world.swarm.moment_us(chance)
        act = chance.random()
        if act < 0.70:
            message = self._transfer(chance, id_of(n))
        elif act < 0.82:
            return self._account_wish(n, at_us, chance)
        elif act < 0.86:
            return self._question(n, at_us, chance)
        else:  # about an earlier transfer
            return self._again(n, at_us, chance, is_cancel=act < 0.93)
        return self._wish_for(n, at_us, message, chance)

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
        legs.append(Leg(*takers[0], rest))
        return Transfer(id, tuple(leg for leg in legs if leg.amount_minor), CURRENCY)

    def _again(self, n: int, at_us: int, chance: random.Random, *, is_cancel: bool) -> Wish:
        """Cancel an earlier transfer, or use its id for another one."""
        earlier = chance.randrange(max(0, n - 6), n + 1)
        first = self._plan(earlier) if earlier < n else None
        if first is None or not isinstance(first.message, Transfer):
            return self._wish_for(n, at_us, self._transfer(chance, id_of(n)), chance)
        at_us = min(self._world.swarm.fault_us, first.at_us + int(chance.expovariate(1 / 600_000)))
        if is_cancel:
            return Wish(n, at_us, Cancel(first.message.id), (first.home,), first.home)
        return self._wish_for(n, at_us, self._transfer(chance, first.message.id), chance)

    def _account_wish(self, n: int, at_us: int, chance: random.Random) -> Wish:
        branch = chance.choice(self._world.swarm.branches)
        if chance.random() < 0.2:
            number = chance.choice(("", "", "2001", "2002"))
            return Wish(n, at_us, OpenAccount(id_of(n), number, "A. Customer", "", 0), (branch,), branch)
        status = chance.choice(("", "open", "open", "frozen"))
        limit_minor = chance.choice((-1, 0, 0, OVERDRAFT_MINOR))
        change = ChangeAccount(id_of(n), chance.choice(NUMBERS), status, limit_minor)
        return Wish(n, at_us, change, (branch,), branch)

    def _question(self, n: int, at_us: int, chance: random.Random) -> Wish:
        branch = chance.choice(self._world.swarm.branches)
        number = chance.choice(NUMBERS)
        questions: list[AnyMessage] = [
            GetAccount(number),
            GetStatus(),
            ListAccounts("", 10),
            GetEntries(number, True, "", 5),
            GetTransfer(id_of(chance.randrange(n + 1))),
        ]
        return Wish(n, at_us, chance.choice(questions), (branch,), branch)

    # --- asking --------------------------------------------------------------------------------------------------------

    def ask_again(self) -> None:
        """Whoever is not told asks once more."""
        for wish in self.untold():
            self._ask(wish)

    def untold(self) -> list[Wish]:
        """The wishes whose time has come and that nobody has answered for good."""
        return [wish for wish in self.wishes if not wish.is_over and wish.attempts]

    def _ask(self, wish: Wish) -> None:
        if wish.is_over:
            return
        wish.attempts += 1
        chance = self._world.chance
        about = ("door", wish.n, wish.attempts)
        self._send(wish, chance.choice(wish.doors, *about))
        if len(set(wish.doors)) > 1 and chance.unit("two doors", *about) < 0.25:
            self._send(wish, chance.choice(wish.doors, "second", *about))
        if wish.attempts < MAX_ATTEMPTS and isinstance(wish.message, Transfer | Cancel | OpenAccount | ChangeAccount):
            patience_us = self._world.swarm.patience_us
            wait_us = chance.between(patience_us // 2, patience_us * 2, "patience", *about)
            self._world.at(self._world.now_us + wait_us, lambda: self._ask(wish))

    def _send(self, wish: Wish, door: str) -> None:
        self._last += 1
        self._asked[self._last] = Asked(wish, door)
        body = encode_batch([(0, HELLO), (self._last, wish.message)])
        try:
            self._sockets[door].send(body)
        except zmq.Again:
            self.answers["nobody there"] += 1

    # --- being told ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Answers have come."""
        for socket in self._sockets.values():
            while socket.inbox:
                for n, message in decode_batch(socket.recv()):
                    if n in self._asked:
                        self._told(self._asked[n], message)

    def _told(self, asked: Asked, message: AnyMessage) -> None:
        wish = asked.wish
        judge = self._world.judge
        self.answers[message.code if isinstance(message, Fault) else type(message).__name__] += 1
        if isinstance(message, Fault):
            if message.code in FINAL_FAULTS:
                wish.is_over = True
                if isinstance(wish.message, Transfer):
                    id = wish.message.id
                    judge.tell_conflict(id, message, is_reused=len(self._contents[id]) > 1)
            return
        if isinstance(wish.message, Transfer):
            outcome = cast(Outcome, message)
            if judge.tell((wish.message.id, wish.digest), wish.home, outcome) and not wish.is_over:
                wish.is_over = True
                for after_us in wish.late:
                    self._world.at(self._world.now_us + after_us, lambda: self._send_late(wish))
        elif isinstance(wish.message, Cancel):
            judge.tell_cancel(asked.door, cast(Outcome, message))
            wish.is_over = cast(Outcome, message).status != "pending"
        elif isinstance(message, Outcome | Opened):
            judge.tell_change(message.id, message)
            wish.is_over = True
        else:
            wish.is_over = True

    def _send_late(self, wish: Wish) -> None:
        """A duplicate that was under way for long."""
        assert isinstance(wish.message, Transfer)
        judge = self._world.judge
        status, _, _ = judge.told[wish.message.id, wish.digest]
        judge.sometimes[f"a late duplicate of a request after {status} was told"] += 1
        door = self._world.chance.choice(wish.doors, "late", wish.n, self._world.now_us)
        self._send(wish, door)


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
