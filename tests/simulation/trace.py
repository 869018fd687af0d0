"""A run's trace for people: times in ms, actors by name, messages in short words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from tests.simulation.world import Line
from zbank.domain.legs import Leg
from zbank.domain.refusal import Refusal
from zbank.protocol.messages import AnyMessage, Beat, BranchInfo, Hello, Position, Txn, Welcome

TALK = (Beat, Hello, Position, Welcome)  #: says nothing about money, and is most of the traffic
MAX_MESSAGES = 6  #: of one frame that are told in full
MAX_LEGS = 4  #: of one message
MAX_SAME = 4  #: times that the same is told
_TEXT_AT = 15  #: behind star, time and two blanks
_FOLDER = re.compile(r"\S*/zbank-simulation-\w+/")  #: of the run's files: another one each time
_NAMED = re.compile(r"\b[0-9a-f]{32}\b|\b[A-Za-z]+-\d+-\d+\b|Txn\(.*?\)")


def short(id: bytes) -> str:
    """An id of the simulation, which are small numbers: `0c`."""
    return f"{int.from_bytes(id, 'big'):02x}"


def words(message: AnyMessage) -> str:
    """A message in a few words, like `Vote yes 0c (coordinator-2-7)`."""
    said = [type(message).__name__]
    said += [str(getattr(message, field)) for field in ("answer", "status", "code") if hasattr(message, field)]
    about: Any = getattr(message, "transfer", message)
    said += [short(about.id)] if getattr(about, "id", b"") else []
    if isinstance(txn := getattr(message, "txn", None), Txn):
        said.append(f"({txn})")
    if isinstance(refusal := getattr(message, "refusal", None), Refusal):
        said.append(f"because {refusal.code}")
    if isinstance(other := getattr(message, "other", None), Txn):
        said.append(f"instead of {other}")
    if isinstance(info := getattr(message, "info", None), BranchInfo):
        said.append(f"epoch {info.epoch}")
    legs: tuple[Leg, ...] = getattr(about, "legs", ())
    said += [f"{leg.branch}/{leg.number} {leg.amount_minor:+d}" for leg in legs[:MAX_LEGS]]
    said += [f"and {len(legs) - MAX_LEGS} legs more"] if len(legs) > MAX_LEGS else []
    return " ".join(said)


def lines(trace: Iterable[Line], marked: Collection[str] = ()) -> Iterator[str]:
    """The lines of a trace that matter; those that name one of `marked` (`0c`, `coordinator-2-7`) begin with a star."""
    overtaken: Sequence[AnyMessage] = ()
    for time_us, kind, source, target, messages in trace:
        if kind == "arrived" and messages is overtaken:
            continue  # said already
        overtaken = messages if kind == "overtaken" else ()
        if not source:
            yield f" {time_us / 1000:12.3f}  -- {_FOLDER.sub('', kind)}"
            continue
        telling = [words(message) for message in messages if type(message) not in TALK]
        if not telling:
            continue
        star = "*" if any(word.strip("()") in marked for told in telling for word in told.split()) else " "
        more = [f"and {len(telling) - MAX_MESSAGES} more"] if len(telling) > MAX_MESSAGES else []
        became = {"arrived": "", "overtaken": "late: "}.get(kind, f"{kind}: ")
        yield f"{star}{time_us / 1000:12.3f}  {source} > {target}  {became}{'; '.join(telling[:MAX_MESSAGES] + more)}"


def sparse(told: Iterable[str]) -> list[str]:
    """Lines without those that say, apart from the time, what was said `MAX_SAME` times before: endless retries."""
    counts: Counter[str] = Counter()
    kept = []
    for line in told:
        text = line[_TEXT_AT:]
        counts[text] += 1
        if counts[text] <= MAX_SAME:
            kept.append(line)
    return kept


def named(violation: str) -> set[str]:
    """The ids and txns that a violation speaks of, as `lines` writes them."""
    found: set[str] = set()
    for name in _NAMED.findall(violation):
        if re.fullmatch(r"[0-9a-f]{32}", name):
            found.add(short(bytes.fromhex(name)))
        elif not name.startswith("Txn("):
            found.add(name)
        elif parts := re.fullmatch(r"Txn\(coordinator='(\w+)', epoch=(\d+), n=(\d+)\)", name):
            found.add("-".join(parts.groups()))
    return found


def digest(trace: Iterable[Line]) -> str:
    """16 hexadecimal digits that differ when anything in the trace does."""
    total = blake2b(digest_size=8)
    for time_us, kind, *rest in trace:
        total.update(repr((time_us, _FOLDER.sub("", kind), *rest)).encode())
    return total.hexdigest()
