"""Planted bugs of a coordinator that goes on alone while its replica leads (R3): `apart` must catch every one."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from tests.simulation.planted import Bug, bug, replace
from zbank.protocol import coordinator_state
from zbank.protocol.coordinator_state import CoordinatorMeta
from zbank.protocol.directory import Directory
from zbank.protocol.finishing import Finisher
from zbank.transport import followers

BUGS: list[Bug] = []


@bug("a commit waits for no branch to hear of the word", "R3", BUGS)
def _told_at_once(stack: ExitStack) -> None:
    replace(stack, Directory, "unaware", lambda self, names: [])


@bug("a commit waits for one of its branches to hear of the word", "R3", BUGS)
def _told_early(stack: ExitStack) -> None:
    def unaware(self: Directory, names: Collection[str]) -> list[str]:
        found: list[str] = old(self, names)
        return found if len(found) == len(names) else []

    old = replace(stack, Directory, "unaware", unaware)


@bug("what waited for the replica leaves with the word", "R3", BUGS)
def _let_out(stack: ExitStack) -> None:
    replace(stack, followers, "_without", lambda withholds, effects: effects)


@bug("a branch in doubt is told of a commit that others wait for", "R3", BUGS)
def _told_when_asked(stack: ExitStack) -> None:
    replace(stack, Finisher, "withholds", lambda self, id: False)


@bug("a coordinator's posting forgets that its replica was replaced", "T4", BUGS)
def _not_posted(stack: ExitStack) -> None:
    def encode(meta: CoordinatorMeta) -> Any:
        meta.replaced_seq = 0
        return old(meta)

    old = replace(stack, coordinator_state, "_encode_meta", encode)
