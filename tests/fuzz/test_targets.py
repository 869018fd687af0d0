"""The targets of the long fuzzer, for a moment: without atheris, on their seeds and what becomes of them."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS, mutated


@pytest.mark.parametrize("name", ["wire", "journal"])
def test_seeds_and_their_mutations(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(7)
    seeds = target.seeds()
    assert len(seeds) > 30
    for body in seeds:
        for _ in range(20):
            target.run(body)
            body = mutated(body, 5_000, chance.getrandbits(32), lambda old, _most: old[: chance.randint(0, len(old))])
            assert len(body) <= 5_000


def test_lives_of_actors() -> None:
    target = TARGETS["actor"]
    for role in (b"\x00", b"\xff"):
        target.run(role + target.seeds()[0][1:])
        target.run(role)
