"""What differs from seed to seed: how large the bank is, how busy, how patient, and which faults it meets how often.

Leaving whole kinds of faults out of a run lets others reach further (swarm testing: Groce et al., ISSTA 2012).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from tests.simulation.chance import Chance
from tests.simulation.network import GOOD, Rates

SECOND_US = 1_000_000
RUSH_US = 400_000
BRANCHES = ("Delhi", "Mumbai", "Pune")
COORDINATORS = ("coordinator", "second")

#: the limits and timers of the actors, and what they may be: a run has one choice of each
TIMERS: dict[tuple[str, str], tuple[int, ...]] = {
    ("zbank.protocol.attempts", "VOTE_LIMIT_US"): (1_000_000, 4_000_000, 4_000_000),
    ("zbank.protocol.attempts", "RESEND_US"): (150_000, 500_000, 500_000),
    ("zbank.protocol.attempts", "RETRY_US"): (50_000, 200_000),
    ("zbank.protocol.inquiry", "INQUIRE_AFTER_US"): (300_000, 2_000_000, 2_000_000),
    ("zbank.protocol.inquiry", "INQUIRE_EVERY_US"): (300_000, 1_000_000),
    ("zbank.protocol.inquiry", "ASK_OTHERS_AFTER_US"): (600_000, 5_000_000),
    ("zbank.protocol.finishing", "ACK_LIMIT_US"): (200_000, 1_000_000),
    ("zbank.protocol.coordinator_state", "SETTLED_IN_MEMORY"): (3, 50_000),
    ("zbank.protocol.branch_state", "SETTLED_IN_MEMORY"): (3, 50_000),
    ("zbank.protocol.branch_state", "ACCOUNTS_IN_MEMORY"): (3, 50_000),
    ("zbank.protocol.participant", "MAX_PREPARED"): (4, 50_000, 50_000),
    ("zbank.protocol.tokens", "MAX_TOKENS"): (2, 4, 5_000),
    ("zbank.protocol.tokens", "PAGE_TOKENS"): (2, 250),
    ("zbank.storage.transfers", "SCAN_ROWS"): (7, 2_000),
    ("zbank.storage.transfers", "PAGE_BYTES"): (1_500, 900_000),
    ("zbank.storage.events", "PAGE_BYTES"): (1_500, 900_000),
    ("zbank.transport.engine", "POST_EVERY_ROWS"): (5, 60, 4096),
    ("zbank.transport.engine", "POST_IDLE_ROWS"): (1, 20, 200),
    ("zbank.transport.links", "SILENT_AFTER_US"): (1_200_000, 3_000_000),
    ("zbank.transport.peers", "SILENT_AFTER_US"): (1_200_000, 3_000_000),
}

#: those that make a branch ask around before the coordinator has given up: together or not at all, in part of the runs
HASTE = {
    "zbank.protocol.attempts.VOTE_LIMIT_US": 4_000_000,
    "zbank.protocol.inquiry.INQUIRE_AFTER_US": 300_000,
    "zbank.protocol.inquiry.INQUIRE_EVERY_US": 300_000,
    "zbank.protocol.inquiry.ASK_OTHERS_AFTER_US": 600_000,
    "zbank.transport.links.SILENT_AFTER_US": 1_200_000,
}

FAULTS = (
    "kill",
    "power cut",
    "stop",
    "pause",
    "replace",
    "cut",
    "cut one way",
    "isolate",
    "full disk",
    "slow disk",
    "clock",
    "slow network",
)
POINTS = ("before", "after", "full", "sync", "power")


class Swarm(msgspec.Struct, frozen=True):
    """The measures of one run."""

    branches: tuple[str, ...]
    coordinators: tuple[str, ...]
    wishes: int  #: what customers want in all
    fault_us: int  #: how long there are faults
    rushes: tuple[int, ...]  #: when everybody comes at once: in hundredths of that time
    rates: Rates
    batching_us: int  #: what arrives within this time is of one turn
    drift: float  #: clocks differ by this share at the most
    faults: tuple[str, ...]  #: kinds that this run has
    faults_count: int
    points: tuple[str, ...]
    points_count: int
    balance_minor: int  #: of each account at first
    patience_us: int  #: of a customer, before asking again
    is_crowded: bool  #: everybody wants the same few accounts
    timers: dict[str, int]  #: by `module.NAME`

    @classmethod
    def of(cls, chance: Chance) -> Swarm:
        """The measures of a seed."""
        random = chance.random("swarm")
        rates = Rates(
            loss=random.choice((0.0, 0.01, 0.05, 0.15)),
            repeat=random.choice((0.0, 0.02, 0.1)),
            delay=random.choice((0.0, 0.02, 0.1)),
            max_delay_us=random.choice((50_000, 2_000_000, 12_000_000)),
        )
        timers = {".".join(place): random.choice(values) for place, values in TIMERS.items()}
        return cls(
            branches=BRANCHES[: random.choice((2, 3, 3))],
            coordinators=COORDINATORS[: random.choice((1, 2, 2))],
            wishes=random.choice((60, 90, 130)),
            fault_us=random.choice((12, 20, 30)) * SECOND_US,
            rushes=tuple(random.randint(5, 95) for _ in range(4)),
            rates=rates if random.random() < 0.8 else GOOD,
            batching_us=random.choice((0, 300, 3_000, 40_000)),
            drift=random.choice((0.0, 0.0004, 0.1)),
            faults=tuple(kind for kind in FAULTS if random.random() < 0.5),
            faults_count=random.choice((2, 6, 12)),
            points=tuple(kind for kind in POINTS if random.random() < 0.6),
            points_count=random.choice((3, 10, 16)),
            balance_minor=random.choice((60, 300, 100_000)),
            patience_us=random.choice((400_000, 1_500_000, 6_000_000)),
            is_crowded=random.random() < 0.4,
            timers=timers | (HASTE if random.random() < 0.4 else {}),
        )

    def moment_us(self, random: Random) -> int:
        """A moment of the time with faults. Wishes and faults like the same ones: alone a fault meets nobody."""
        if random.random() < 0.5:
            return min(self.fault_us, random.choice(self.rushes) * self.fault_us // 100 + random.randint(0, RUSH_US))
        return random.randint(0, self.fault_us)

    @contextmanager
    def set_timers(self) -> Iterator[None]:
        """The actors' limits and timers as this run has them."""
        before: dict[tuple[Any, str], int] = {}
        for place, value in self.timers.items():
            module, _, name = place.rpartition(".")
            found = importlib.import_module(module)
            before[found, name] = getattr(found, name)
            setattr(found, name, value)
        try:
            yield
        finally:
            for (found, name), value in before.items():
                setattr(found, name, value)
