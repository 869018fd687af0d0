"""What many runs have shown, and what is known of a failed one: as text of 100 columns, and as JSON."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation import trace
from tests.simulation.many import Totals
from tests.simulation.run import Result
from tests.simulation.shrink import NOISE, Shrunk
from tests.simulation.sometimes import STANDARD_SEEDS
from tests.simulation.swarm import Swarm

WIDTH = 100
COLUMNS = 3  #: of a list of counters
TRACE_LINES = 60  #: the last ones, with a failure
NOTHING = "nothing"  #: a key that never happens: what `--only` says when nothing is left
_FATES = ("lost", "repeated", "delayed", "overtaken", "cut")
_WAYS = ("before", "after", "power", "full", "sync")
_FATE_COUNTER = re.compile(rf"(\w+) ({'|'.join(_FATES)})")
_FORCE_COUNTER = re.compile(rf"({'|'.join(_WAYS)}) the force of (\w+)")


class Failure(msgspec.Struct):
    """A seed that broke a rule, and the smallest run of it that breaks the same rule."""

    seed: int
    violation: str
    command: str  #: that plays the seed again
    left: dict[str, str]  #: of what happened, what is enough: key → kind
    left_violation: str
    left_command: str
    runs: int  #: that shrinking took
    is_smallest: bool
    trace: list[str]  #: the end of the smallest run, without endless retries


class Summary(msgspec.Struct):
    """A run of many seeds."""

    commit: str
    start: int
    workers: int
    real_s: float
    totals: Totals
    violations: dict[int, str]  #: by seed
    failures: list[Failure]  #: of those the first of each rule, looked into
    stopped: str = ""  #: why not all seeds were played
    planted: str = ""  #: the name of the bug that was put in

    @property
    def passed(self) -> bool:
        """Nothing broken, everything met that had to be."""
        is_complete = not (self.totals.must_be_complete and self.totals.missing)
        return not self.violations and not self.stopped and is_complete and self.totals.seeds > 0

    @property
    def verdict(self) -> str:
        """The last line."""
        totals = self.totals
        played = f"{totals.seeds:,} seeds from {self.start}"
        if self.violations:
            seeds = ", ".join(map(str, self.violations))
            return f"FAIL: of {played}, {len(self.violations)} broke a rule: {seeds}{_also(self.stopped)}"
        if self.stopped or not totals.seeds:
            return f"FAIL: {played}, nothing broken, but {self.stopped or 'no seed was played'}"
        count = len(totals.missing)
        if not self.passed:
            return f"FAIL: {played}, nothing broken, but {count} situations not met, which {STANDARD_SEEDS} seeds must meet"
        passed = f"PASS: {played}, nothing broken{', the planted bug not found' if self.planted else ''}"
        if count:
            return f"{passed} ({count} situations not met: so few seeds need not meet all)"
        return f"{passed}, every situation met"

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        not_met = [situation._asdict() for situation in self.totals.missing]
        return built | {"not_met": not_met, "passed": self.passed, "verdict": self.verdict}


def _also(reason: str) -> str:
    return f" ({reason})" if reason else ""


def commit(root: Path) -> str:
    """The commit of this code, with "+ changes" where there are some; "" when it is not known."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        name = git("rev-parse", "--short", "HEAD")
        return f"{name} + changes" if git("status", "--porcelain") else name
    except (OSError, subprocess.CalledProcessError):
        return ""


def command(seed: int, *, planted: str = "", without: Iterable[str] = (), only: Iterable[str] = ()) -> str:
    """What to type to play this seed again, with the bug of that name planted."""
    python = sys.executable
    if Path(python).is_relative_to(Path.cwd()):
        python = os.path.relpath(python)
    words = [python, "-m", "tests.simulation", "--replay", str(seed)]
    plants = (planted,) if planted else ()
    for option, keys in (("--plant", plants), ("--without", without), ("--only", only)):
        for key in keys:
            words += [option, key]
    return shlex.join(words)


def failure(result: Result, again: str, shrunk: Shrunk, planted: str = "") -> Failure:
    """All that is known of a failed run; `again` is the command that plays it again, `planted` a bug's name."""
    marked = trace.named(shrunk.violation)
    return Failure(
        seed=result.seed,
        violation=result.violation,
        command=again,
        left=shrunk.happenings,
        left_violation=shrunk.violation,
        left_command=command(result.seed, planted=planted, only=shrunk.happenings or (NOTHING,)),
        runs=shrunk.runs,
        is_smallest=shrunk.is_smallest,
        trace=trace.sparse(trace.lines(shrunk.world.trace, marked))[-TRACE_LINES:],
    )


def failure_lines(found: Failure, code: str) -> Iterator[str]:
    """A failure for people. `code` is the commit that failed."""
    yield f"FAILED: seed {found.seed}{_at(code)}"
    yield from _wrapped("violation", found.violation)
    yield f"  replay     {found.command}"
    yield ""
    limit = "" if found.is_smallest else "; the search was cut short"
    yield f"Enough of what happened for the same rule to be broken (found in {found.runs} runs{limit}):"
    wishes = [key.removeprefix("wish ") for key, kind in found.left.items() if kind == "wish"]
    if wishes:
        yield from _wrapped("wishes", " ".join(wishes))
    yield from (
        f"  {'network' if kind in NOISE else 'fault':9}  {key}" for key, kind in found.left.items() if kind != "wish"
    )
    if not found.left:
        yield "  nothing: it fails by itself"
    yield from _wrapped("violation", found.left_violation)
    yield f"  replay     {found.left_command}"
    yield ""
    yield f"The last {len(found.trace)} lines of its trace, in ms, without beats, hellos and endless retries"
    yield "(a line with * names what the violation names):"
    yield from found.trace


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {name:9}  ", subsequent_indent=" " * 13, break_on_hyphens=False
    )


def _at(code: str) -> str:
    return f" at commit {code}" if code else ""


def summary_lines(summary: Summary) -> Iterator[str]:
    """A run of many seeds for people."""
    totals = summary.totals
    code = summary.commit
    yield f"zbank simulated{_at(code)}: seeds from {summary.start}, {summary.workers} at a time, {duration(summary.real_s)}"
    yield from _planted(summary.planted)
    yield ""
    busy_s, real_s = totals.busy_s or 1, summary.real_s or 1
    yield _fact(
        "seeds", totals.seeds, f"{totals.seeds / real_s:,.1f} a second; {totals.seeds / busy_s:,.1f} a second and core"
    )
    yield _fact("events", totals.events, f"{totals.events / busy_s:,.0f} a second and core")
    yield _fact("frames", totals.frames, f"{totals.frames / busy_s:,.0f} a second and core")
    yield f"  {'virtual time':14}{duration(totals.virtual_s):>14}  {totals.virtual_s / busy_s:,.0f} times as long as it took"
    yield from _counters("What happened to the bank", totals.happenings)
    yield from _counters("What customers were answered", totals.answers)
    yield from _sometimes(totals.sometimes)
    if totals.missing:
        yield from ("", "Not met")
        for situation in totals.missing:
            yield from textwrap.wrap(
                f"{situation.fault}: {', '.join(situation.counters)}",
                WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * 6,
            )
    if summary.violations:
        yield from ("", "Broken")
        for seed, violation in summary.violations.items():
            yield from textwrap.wrap(f"seed {seed}: {violation}", WIDTH, initial_indent="  ", subsequent_indent=" " * 6)
    yield from ("", summary.verdict)


def _planted(name: str) -> Iterator[str]:
    if name:
        yield from _wrapped("planted", name)


def _fact(name: str, value: int, more: str) -> str:
    return f"  {name:14}{value:>14,}  {more}"


def duration(seconds: float) -> str:
    """`42.0 s`, `3 min 20 s`, `5 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _counters(title: str, counters: Mapping[str, int]) -> Iterator[str]:
    """Names and counts, in columns that are read downwards."""
    yield from ("", title)
    cells = [f"{name:20}{count:>10,}" for name, count in sorted(counters.items())]
    height = -(-len(cells) // COLUMNS)
    for row in range(height):
        yield "  " + "  ".join(cells[row::height])


def _sometimes(sometimes: Mapping[str, int]) -> Iterator[str]:
    fates: dict[str, dict[str, int]] = {}
    forces: dict[str, dict[str, int]] = {}
    others: dict[str, int] = {}
    for counter, count in sorted(sometimes.items()):
        if found := _FATE_COUNTER.fullmatch(counter):
            fates.setdefault(found[1], {})[found[2]] = count
        elif found := _FORCE_COUNTER.fullmatch(counter):
            forces.setdefault(found[2], {})[found[1]] = count
        else:
            others[counter] = count
    yield from _matrix("What became of messages", _FATES, fates)
    yield from _matrix("At the force of (killed before, after; power cut; disk full; sync failed)", _WAYS, forces)
    if others:
        yield from ("", "What else was met")
        yield from (f"  {count:>10,}  {counter}" for counter, count in others.items())


def _matrix(title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", title, f"  {'':16}{''.join(f'{column:>12}' for column in columns)}")
    for name, row in rows.items():
        yield f"  {name:16}{''.join(f'{row.get(column, 0):>12,}' for column in columns)}"


def replay_lines(result: Result, swarm: Swarm, digest: str, code: str, planted: str = "") -> Iterator[str]:
    """One seed, played alone."""
    counts = f"{result.events:,} events, {result.frames:,} frames, {duration(result.virtual_s)} of virtual time"
    yield f"seed {result.seed}{_at(code)}: {counts}"
    yield from textwrap.wrap(f"{'planted':15}{planted}", WIDTH, initial_indent="  ") if planted else ()
    for name, value in msgspec.structs.asdict(swarm).items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if isinstance(value, Mapping):
            shown = ", ".join(f"{key.removeprefix('zbank.')} {limit}" for key, limit in value.items())
        yield from textwrap.wrap(f"{name:15}{shown}", WIDTH, initial_indent="  ", subsequent_indent=" " * 17)
    yield f"  {'trace digest':15}{digest}"
