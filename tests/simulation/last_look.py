"""The last questions of a run, when all is at rest: whole lists, page by page, by the code that answers clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from msgspec.structs import replace

from tests.simulation.site import ActorProcess, Site
from tests.simulation.violation import breach
from tests.simulation.watching import Chronicle, Question
from tests.simulation.wishes import NUMBERS
from tests.simulation.world import World
from zbank.domain.legs import CASH
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    ABORTED,
    CLIENT,
    COMMITTED,
    FAR_US,
    AnyMessage,
    EventsPage,
    GetEvents,
    GetFigures,
    GetTokens,
    ListTransfers,
    TokensPage,
    TransferListed,
    TransfersPage,
)

READER = Sender(b"reader", CLIENT, "")
MAX_PAGES = 2_000
LISTS = 4  #: of different kinds, asked of each branch


def look_at_all(world: World, sites: Mapping[str, Site]) -> None:
    """Every actor's events from its first row on, figures, lists; all tokens; and the whole bank's transfers."""
    chance = world.chance.random("last look")
    world.judge.witness.counts = False
    at_home: dict[str, list[TransferListed]] = {}
    for name, site in sites.items():
        process = site.process
        assert process is not None
        reader = _Reader(world, process)
        reader.ask(GetFigures())
        reader.all_events(chance.choice((3, 20, 1000)))
        if name in world.swarm.coordinators:
            reader.all_tokens()
            continue
        limit = chance.choice((3, 20, 1000))
        at_home[name] = reader.all_transfers(ListTransfers("", "", True, 0, FAR_US, "", limit))
        for asked in _lists(chance, world.judge.witness.chronicles[name]):
            reader.all_transfers(asked)
    world.judge.witness.listed_at_home(at_home, world.judge.told)


def _lists(chance: Random, chronicle: Chronicle) -> Iterator[ListTransfers]:
    """Some lists of one branch, between times at which something happened."""
    for _ in range(LISTS):
        from_us, until_us = (chance.choice(chronicle.rows).at_us + chance.choice((0, 0, 1)) for _ in range(2))
        number = chance.choice(("", *NUMBERS[:2], CASH))
        status = chance.choice(("", COMMITTED, ABORTED))
        span = chance.choice(((from_us, FAR_US), (0, until_us), (min(from_us, until_us), max(from_us, until_us))))
        yield ListTransfers(number, status, chance.random() < 0.3, *span, "", chance.choice((2, 10, 1000)))


class _Reader:
    """A client of one actor that reads it through."""

    def __init__(self, world: World, process: ActorProcess) -> None:
        self._witness = world.judge.witness
        self._process = process
        self._name = process.name
        self._now_us = world.now_us

    def ask(self, message: AnyMessage) -> AnyMessage:
        """The answer, judged as one that leaves and as one that arrives."""
        process = self._process
        ((_, answer),) = (
            (effect.to, effect.message)
            for effect in process.engine.turn([(READER, 1, message)], process.site.clock.now())
        )
        process.engine.maintain()
        with breach("lists, events and figures are what is forced, and all of it"):
            self._witness.sent(self._name, answer)
        question = Question(message, self._witness.chronicles[self._name].seq, self._now_us)
        self._witness.tell_page(self._name, question, answer)
        return answer

    def all_events(self, limit: int) -> None:
        """From the first row to the last."""
        after, is_last = 0, False
        while not is_last:
            page = self.ask(GetEvents(after, limit))
            assert isinstance(page, EventsPage), page
            after, is_last = page.seq, page.is_last

    def all_tokens(self) -> None:
        """Every page."""
        after = -1
        while after:
            page = self.ask(GetTokens(-1, max(0, after)))
            assert isinstance(page, TokensPage), page
            after = page.next

    def all_transfers(self, asked: ListTransfers) -> list[TransferListed]:
        """Every page of a list; together they are what the journal says."""
        found: list[TransferListed] = []
        message = asked
        for _ in range(MAX_PAGES):
            page = self.ask(message)
            assert isinstance(page, TransfersPage), page
            found += page.transfers
            if not page.cursor:
                break
            message = replace(message, cursor=page.cursor)
        with breach("lists, events and figures are what is forced, and all of it"):
            assert len(found) == len({listed.cursor for listed in found}), f"{asked} has lines twice"
            self._witness.chronicles[self._name].is_all(asked, found)
        return found
