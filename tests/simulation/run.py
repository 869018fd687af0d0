"""One seed from its first to its last event: faults, then healing, then rest; and what came of it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Container
from functools import partial
from pathlib import Path

import msgspec

from tests.simulation.customers import Customers
from tests.simulation.faults import plan_faults
from tests.simulation.last_look import look_at_all
from tests.simulation.network import GOOD
from tests.simulation.site import Site
from tests.simulation.swarm import SECOND_US
from tests.simulation.violation import Violation, breach
from tests.simulation.wishes import CURRENCY, opening
from tests.simulation.world import World
from zbank.apps import branch, coordinator
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Sender
from zbank.protocol.messages import CLIENT

HEAL_LIMIT_US = 90 * SECOND_US
ASK_EVERY_US = SECOND_US
MEMORY = Path("/dev/shm")  # a file system in memory, where there is one: the disk's forgetting is simulated above it


class Result(msgspec.Struct):
    """What came of a run."""

    seed: int
    violation: str  #: "" = none
    is_crash: bool  #: the violation is an error that the code raised, not one that the judge found
    events: int
    frames: int
    virtual_s: float
    real_s: float
    happenings: dict[str, str]  #: by key, the kind of everything that was left to chance
    sometimes: Counter[str]
    answers: Counter[str]


class Run:
    """A bank in a simulated world."""

    def __init__(self, seed: int, folder: Path, without: Container[str] = ()) -> None:
        self.world = World(seed, without)
        swarm = self.world.swarm
        self.endpoints = {
            name: f"tcp://10.0.0.1:{9000 + n}" for n, name in enumerate((*swarm.coordinators, *swarm.branches))
        }
        self.sites = {name: self._site(name, folder) for name in self.endpoints}

    def _site(self, name: str, folder: Path) -> Site:
        swarm = self.world.swarm
        at = self.endpoints[name]
        if name in swarm.coordinators:
            settings = coordinator.CoordinatorSettings("demo", at, at, folder, swarm.branches, name=name)
            return Site(self.world, settings.identity, at, partial(coordinator.wire, settings), folder)
        doors = tuple(self.endpoints[coordinator] for coordinator in swarm.coordinators)
        peers = {other: self.endpoints[other] for other in swarm.branches if other != name}
        own = branch.BranchSettings(name, "demo", at, at, doors, CURRENCY, folder, peers, preload=False)
        return Site(self.world, own.identity, at, partial(branch.wire, own), folder)

    def play(self) -> Customers:
        """Everything, to the end. Raises Violation."""
        world = self.world
        with world.swarm.set_timers(), world.listening():
            self._open()
            customers = Customers(world, self.endpoints)
            plan_faults(world, self.sites)
            world.network.rates = world.swarm.rates
            world.run(world.begin_us + world.swarm.fault_us)
            self._heal()
            self._come_to_rest(customers)
            self._check_journals()
            look_at_all(world, self.sites)
        return customers

    def _open(self) -> None:
        world = self.world
        for site in self.sites.values():
            site.start()
        teller = Sender(b"", CLIENT, "")
        for name in world.swarm.branches:
            process = self.sites[name].process
            assert process is not None
            requests = [(teller, 0, message) for message in opening(name, world.swarm.balance_minor)]
            process.engine.turn(requests, self.sites[name].clock.now())
        while not all(self._is_linked(name) for name in world.swarm.branches):
            world.run(world.now_us + 100_000)
        world.begin_us = world.now_us

    def _is_linked(self, name: str) -> bool:
        process = self.sites[name].process
        return process is not None and all(link.state == "up" for link in process.loop._coordinators)

    def _heal(self) -> None:
        """No faults any more."""
        world = self.world
        world.note("the faults are over")
        world.network.rates = GOOD
        world.network.cuts.clear()
        for site in self.sites.values():
            site.heal()

    def _come_to_rest(self, customers: Customers) -> None:
        world = self.world
        end_us = world.now_us + HEAL_LIMIT_US
        while unrest := self._unrest(customers):
            if world.now_us > end_us:
                raise Violation(f"not at rest {HEAL_LIMIT_US // SECOND_US} s after the faults: {unrest}")
            customers.ask_again()
            world.run(world.now_us + ASK_EVERY_US)
        world.judge.rest()

    def _unrest(self, customers: Customers) -> list[str]:
        found = [f"wish {wish.n} is not told" for wish in customers.untold()]
        for name, site in self.sites.items():
            if site.process is None:
                found.append(f"{name} does not run")
                continue
            machine = site.process.engine.machine
            fold = machine.fold
            if isinstance(fold, BranchState):
                found += [f"{name} is in doubt of {held.txn}" for held in fold.prepared.values()]
            elif isinstance(fold, CoordinatorState):
                found += [f"{name} is not done with {id.hex()}" for id in fold.open]
            if isinstance(machine, Coordinator):
                away = sorted(set(self.world.swarm.branches) - machine.directory.up)
                found += [f"{branch} is not registered with {name}" for branch in away]
        if not found and self.world.network.on_the_way[True]:
            found.append("messages are on their way")
        return found

    def _check_journals(self) -> None:
        """Chains from the first row; tables against a fold of the whole journal by the real code."""
        for name, site in self.sites.items():
            process = site.process
            assert process is not None
            assert process.store is not None
            process.engine.post()
            store = process.store
            with breach("at the end the chains verify"):
                assert store.verify() == store.seq
            process.check_recovered()
            if process.state is None:
                continue
            whole = BranchState(name, CURRENCY)
            for seq in range(1, store.seq + 1):
                row = store.row(seq)
                assert row is not None
                whole.apply(row.seq, row.epoch, row.at_us, decode_record(row.body))
            posted = {account.number: account for account in store.load_accounts(list(whole.book.accounts))}
            with breach("the tables are the fold of the journal"):
                assert posted == whole.book.accounts, f"{name}'s tables differ from its journal"

    def close(self) -> None:
        """Let go of all files."""
        for site in self.sites.values():
            site.close()


def play(seed: int, without: Container[str] = ()) -> tuple[Result, World]:
    """Run one seed; gives what came of it, and the world with its trace. Real faults of the code pass as violations."""
    started_s = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="zbank-simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        run = Run(seed, folder, without)
        violation = ""
        is_crash = False
        answers: Counter[str] = Counter()
        try:
            answers = run.play().answers
        except Violation as error:
            violation = str(error)
        except Exception as error:  # whatever the code raises that it does not say it raises is a finding too
            is_crash = True
            violation = f"{type(error).__name__}: {error} ({_place(error)})"
        finally:
            run.close()
    finally:
        shutil.rmtree(folder)
    world = run.world
    return (
        Result(
            seed=seed,
            violation=violation.replace(f"{folder}/", ""),  # another folder each time
            is_crash=is_crash,
            events=world.events,
            frames=world.network.frames,
            virtual_s=world.now_us / SECOND_US,
            real_s=time.perf_counter() - started_s,
            happenings=world.happenings,
            sometimes=world.judge.sometimes,
            answers=answers,
        ),
        world,
    )


def _place(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
