"""The customers: whom they ask, how often, and what they do when nobody answers.

A wish is made once, with its id, and asked for until it is told: at one door or two, again after a time, late once more
after it was told. What they want is in `wishes`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple, cast

import zmq
from msgspec.structs import replace

from tests.simulation.network import SimulatedContext, SimulatedSocket
from tests.simulation.watching import Question
from tests.simulation.wishes import Owned, Planner, Wish, Write
from tests.simulation.world import World
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    CLIENT,
    PROTOCOL_VERSION,
    AnyMessage,
    Cancel,
    EventsPage,
    Fault,
    GetEvents,
    GetTokens,
    Hello,
    ListTransfers,
    MakeToken,
    Opened,
    Outcome,
    RevokeToken,
    TokenInfo,
    TokensPage,
    Transfer,
    TransfersPage,
)

HELLO = Hello(PROTOCOL_VERSION, "demo", CLIENT, "customer")
MAX_ATTEMPTS = 6  #: while there are faults; afterwards it asks until it is told
#: asking again would not help
FINAL_FAULTS = {"idempotency_conflict", "malformed", "invalid_amount", "token_not_found", "limit_exceeded"}


class Asked(NamedTuple):
    """A request on its way."""

    wish: Wish
    door: str
    at_us: int
    seq: int  #: the last row that the door had forced by then


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
        self._uses: dict[bytes, set[tuple[bytes, str]]] = defaultdict(set)  #: by id: what it is used for, and by whom
        self._last = 0
        planner = Planner(world)
        for n in range(world.swarm.wishes):
            wish = planner.plan(n)
            if world.happened("wish", f"wish {n}"):
                self.wishes.append(wish)
                if isinstance(wish.message, Owned):
                    self._uses[wish.message.id].add(wish.use)
                world.at(world.begin_us + wish.at_us, lambda wish=wish: self._ask(wish))  # type: ignore[misc]

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
        if wish.attempts < MAX_ATTEMPTS and isinstance(wish.message, Write):
            patience_us = self._world.swarm.patience_us
            wait_us = chance.between(patience_us // 2, patience_us * 2, "patience", *about)
            self._world.at(self._world.now_us + wait_us, lambda: self._ask(wish))

    def _send(self, wish: Wish, door: str) -> None:
        self._last += 1
        seq, _ = self._world.judge.positions.get(door, (0, b""))
        self._asked[self._last] = Asked(wish, door, self._world.now_us, seq)
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
            self._told_fault(wish, message)
        elif isinstance(wish.message, Transfer):
            if judge.tell(wish.key, wish.home, cast(Outcome, message)):
                self._over(wish)
        elif isinstance(wish.message, Cancel):
            outcome = cast(Outcome, message)
            judge.tell_cancel(asked.door, outcome, wish.message.caller)
            wish.is_over = outcome.status != "pending"
        elif isinstance(message, Outcome | Opened):
            judge.tell_change(message.id, wish.home, message, wish.use[1])
            wish.is_over = True
        elif isinstance(message, TokenInfo):
            assert isinstance(wish.message, MakeToken | RevokeToken)
            judge.witness.tell_token(asked.door, wish.message, message, asked.at_us, self._world.now_us)
            self._over(wish)
        else:
            judge.witness.tell_page(asked.door, Question(wish.message, asked.seq, asked.at_us), message)
            wish.is_over = True
            self._ask_on(asked, message)

    def _told_fault(self, wish: Wish, fault: Fault) -> None:
        if fault.code not in FINAL_FAULTS:
            return
        wish.is_over = True
        message = wish.message
        if isinstance(message, Owned):
            contents = {digest for digest, _ in self._uses[message.id] if digest}
            callers = {caller for _, caller in self._uses[message.id]}
            is_reused = len(contents) > 1 or len(callers) > 1
            self._world.judge.tell_conflict(message.id, fault, is_reused=is_reused)
            if len(contents) < 2:
                self._world.judge.sometimes[f"in another's name an id is told to conflict: {type(message).__name__}"] += 1
        elif isinstance(message, MakeToken | RevokeToken):
            self._world.judge.witness.tell_no_token(wish.home, message, fault)

    def _over(self, wish: Wish) -> None:
        """It is told; it may be sent once more all the same."""
        if not wish.is_over:
            wish.is_over = True
            for after_us in wish.late:
                self._world.at(self._world.now_us + after_us, lambda: self._send_late(wish))

    def _ask_on(self, asked: Asked, message: AnyMessage) -> None:
        """Go on to the next page. Nobody minds when it does not come."""
        question = asked.wish.message
        following: AnyMessage | None = None
        match message:
            case TransfersPage(cursor=cursor) if cursor:
                following = replace(cast(ListTransfers, question), cursor=cursor)
            case EventsPage(seq=seq, is_last=False):
                following = replace(cast(GetEvents, question), after=seq)
            case TokensPage(next=after) if after:
                following = replace(cast(GetTokens, question), after=after, known_version=-1)
        if following is not None:
            self._send(_next_question(asked.wish, following), asked.door)

    def _send_late(self, wish: Wish) -> None:
        """A duplicate that was under way for long."""
        judge = self._world.judge
        if isinstance(wish.message, Transfer):
            status, _, _ = judge.told[wish.key]
            judge.sometimes[f"a late duplicate of a request after {status} was told"] += 1
        door = self._world.chance.choice(wish.doors, "late", wish.n, self._world.now_us)
        self._send(wish, door)


def _next_question(wish: Wish, message: AnyMessage) -> Wish:
    """The same customer's next question."""
    return Wish(wish.n, wish.at_us, message, wish.doors, wish.home)
