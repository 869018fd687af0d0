"""`python -m tests.simulation`: play many seeds, or one of them again.

Exit code 0: nothing broken; 1: something, or not all seeds were played; 2: wrong usage; 130: Ctrl-C while one seed is played.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Container, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation import report, trace
from tests.simulation.bugs import all_bugs
from tests.simulation.many import Totals, play_in_time, results
from tests.simulation.run import Result
from tests.simulation.shrink import AllBut, Noting, rule_of, shrink
from tests.simulation.sometimes import STANDARD_SEEDS
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
MAX_FAILURES = 10  #: no more seeds after so many
MAX_REPORTS = 3  #: failures that are looked into, of different rules
PROGRESS_EVERY_S = 0.5
EXIT_INTERRUPTED = 130

_DESCRIPTION = """
The real actors and the real store in a simulated world: a network that loses, repeats, delays and reorders, processes
that are killed, disks that fail. Each seed is another run; the same seed is always the same run.
"""
_EXAMPLES = """
examples:
  python -m tests.simulation                         the standard run
  python -m tests.simulation --minutes 10            a long run, of seeds that were not played before
  python -m tests.simulation --replay 17 --trace     one seed, with all that happened
  python -m tests.simulation --replay 17 --without "wish 3" --without "kill #0: Delhi for 2.5 s"
  python -m tests.simulation --list-bugs             the bugs that can be planted, to see how one is found:
  python -m tests.simulation --plant "one yes is enough"
"""


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def _seed(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value < 2**62:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to 2^62, not {text!r}")
    return value


def _minutes(text: str) -> float:
    value = float(text) if re.fullmatch(r"\d+(\.\d+)?|\.\d+", text, re.ASCII) else 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes, as 10 or 0.5")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    many = parser.add_argument_group("many seeds")
    many.add_argument("--seeds", type=_count, metavar="N", help=f"how many (default {STANDARD_SEEDS})")
    many.add_argument(
        "--start", type=_seed, metavar="S", help="the first one (default 0; with --minutes: by the clock)"
    )
    many.add_argument("--minutes", type=_minutes, metavar="M", help="play for so long, instead of --seeds")
    many.add_argument("--workers", type=_count, metavar="W", help="processes (default: one a core)")
    one = parser.add_argument_group("one seed")
    one.add_argument("--replay", type=_seed, metavar="SEED", help="play this seed alone")
    keys = one.add_mutually_exclusive_group()
    keys.add_argument("--without", action="append", metavar="KEY", help="leave this fault or wish out; may be repeated")
    keys.add_argument("--only", action="append", metavar="KEY", help="leave out all but this; may be repeated")
    one.add_argument("--trace", action="store_true", help="print the whole trace")
    bugs = parser.add_argument_group("planted bugs, to see what a failure looks like")
    bugs.add_argument(
        "--plant", metavar="NAME", help="put this bug into the code; many seeds end at the first that fails"
    )
    bugs.add_argument("--list-bugs", action="store_true", help="print the rule that each breaks, and its name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _checked(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    asked = parser.parse_args(arguments)
    if asked.replay is None and (asked.without or asked.only or asked.trace):
        parser.error("--without, --only and --trace are for --replay SEED")
    if asked.replay is not None and any((asked.seeds, asked.start is not None, asked.minutes, asked.workers)):
        parser.error("--replay plays one seed: --seeds, --start, --minutes and --workers are for many")
    if asked.seeds and asked.minutes:
        parser.error("--seeds or --minutes, not both")
    if asked.plant is not None and asked.plant not in all_bugs():
        names = "".join(f"\n  {name}" for name in all_bugs())
        parser.error(f"there is no planted bug {asked.plant!r}; there are:{names}")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    asked = _checked(_parser(), arguments)
    if asked.list_bugs:
        return _list_bugs(asked)
    code: AbstractContextManager[None] = all_bugs()[asked.plant].planted() if asked.plant else nullcontext()
    try:
        with code:
            return _replay(asked) if asked.replay is not None else _play_many(asked)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _list_bugs(asked: argparse.Namespace) -> int:
    bugs = sorted(all_bugs().values(), key=lambda bug: (bug.rule[0], int(bug.rule[1:])))
    if asked.json:
        print(json.dumps([{"rule": bug.rule, "name": bug.name} for bug in bugs], indent=2))
    else:
        _print([f"{bug.rule:4} {bug.name}" for bug in bugs])
    return 0


# --- many ----------------------------------------------------------------------------------------------------------------


def _play_many(asked: argparse.Namespace) -> int:
    start = asked.start
    if start is None:
        start = int(time.time()) if asked.minutes else 0
    if asked.minutes and not asked.json:
        print(f"playing seeds from {start} for {asked.minutes:g} min", flush=True)
    seeds = None if asked.minutes else asked.seeds or STANDARD_SEEDS
    workers = asked.workers or os.cpu_count() or 1
    began_s = time.monotonic()
    end_s = began_s + asked.minutes * 60 if asked.minutes else None
    summary = report.Summary(report.commit(ROOT), start, workers, 0.0, Totals(), {}, [], planted=asked.plant or "")
    failed: list[Result] = []
    max_failures = 1 if asked.plant else MAX_FAILURES
    try:
        for result in _shown(results(start, seeds, workers, end_s, summary.planted), seeds):
            summary.totals.add(result)
            if result.violation:
                failed.append(result)
                summary.violations[result.seed] = result.violation
            if len(failed) == max_failures:
                summary.stopped = (
                    "stopped at the first failure" if asked.plant else f"stopped after {max_failures} failures"
                )
                break
    except KeyboardInterrupt:
        last = start + summary.totals.seeds - 1
        summary.stopped = f"stopped by Ctrl-C {'before the first was played' if last < start else f'after seed {last}'}"
    except BrokenProcessPool as error:
        summary.stopped = f"a worker died at a seed from {start + summary.totals.seeds} on: {error}"
    summary.real_s = time.monotonic() - began_s
    try:
        _look_into_failures(summary, failed)
    except KeyboardInterrupt:
        summary.stopped = "stopped by Ctrl-C while a failure was looked into"
    _print(summary.to_json() if asked.json else _blocks(summary))
    return 0 if summary.passed else 1


def _look_into_failures(summary: report.Summary, failed: Sequence[Result]) -> None:
    """Of the first failure of each rule, all that can be known."""
    firsts = {rule_of(result.violation): result for result in reversed(failed)}
    for result in sorted(firsts.values(), key=lambda first: first.seed)[:MAX_REPORTS]:
        again, world = play_in_time(result.seed)
        if again.violation == result.violation:
            command = report.command(result.seed, planted=summary.planted)
            summary.failures.append(_look_into(again, world, command, summary.planted))
        else:
            summary.violations[result.seed] += (
                f" — not the same when it was played again: {again.violation or 'passed'}"
            )


def _blocks(summary: report.Summary) -> Iterator[str]:
    for found in summary.failures:
        yield from report.failure_lines(found, summary.commit)
        yield ""
    yield from report.summary_lines(summary)


def _shown(played: Iterator[Result], seeds: int | None) -> Iterator[Result]:
    """The same results, with the progress on a terminal."""
    if not sys.stderr.isatty():
        yield from played
        return
    began_s = shown_s = time.monotonic()
    failed = 0
    try:
        for count, result in enumerate(played, start=1):
            failed += bool(result.violation)
            now_s = time.monotonic()
            if now_s - shown_s >= PROGRESS_EVERY_S:
                shown_s = now_s
                of = f" of {seeds:,}" if seeds else ""
                rate = f"{count / (now_s - began_s):.1f} a second"
                print(f"\r{count:,}{of} seeds, {rate}, {failed} failed \033[K", end="", file=sys.stderr, flush=True)
            yield result
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


# --- one -----------------------------------------------------------------------------------------------------------------


def _replay(asked: argparse.Namespace) -> int:
    code = report.commit(ROOT)
    planted = asked.plant or ""
    without: Container[str] = AllBut(asked.only) if asked.only else frozenset(asked.without or ())
    noting = Noting(without)
    result, world = play_in_time(asked.replay, noting)
    never = [key for key in asked.only or asked.without or () if key not in noting.asked and key != report.NOTHING]
    if never:
        _complain_of(never, result)
        if not result.violation:
            return 2
    digest = trace.digest(world.trace)
    found = None
    if result.violation:
        again = report.command(result.seed, planted=planted, without=asked.without or (), only=asked.only or ())
        found = _look_into(result, world, again, planted)
    whole = list(trace.lines(world.trace, trace.named(result.violation))) if asked.trace else []
    if asked.json:
        built = {"commit": code, "planted": planted, "digest": digest, **msgspec.to_builtins(result)}
        _print(built | {"trace": whole, "failure": msgspec.to_builtins(found)})
    else:
        _print([*whole, *report.replay_lines(result, world.swarm, digest, code, planted)])
        _print(["", *report.failure_lines(found, code), "", "FAIL"] if found else ["", "PASS: nothing broken"])
    return 1 if found else 0


def _complain_of(never: Sequence[str], result: Result) -> None:
    """Say which keys were not met: a run in which a fault is left out that it never had proves nothing about the fault."""
    keys = ", ".join(f'"{key}"' for key in never)
    end = " before its failure" if result.violation else ""
    print(
        f"python -m tests.simulation: error: this run of seed {result.seed} never comes to {keys}{end}: "
        f"all that happens in it is listed, as happenings, by --replay {result.seed} --json",
        file=sys.stderr,
    )


def _look_into(result: Result, world: World, again: str, planted: str) -> report.Failure:
    """Make a failed run as small as it gets."""
    return report.failure(result, again, shrink(play_in_time, result, world), planted)


def _print(what: Any) -> None:
    if isinstance(what, dict):
        print(json.dumps(what, indent=2))
    else:
        print("\n".join(what))


if __name__ == "__main__":
    sys.exit(main())
