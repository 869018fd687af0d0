"""The long fuzzer's verdict, from what libFuzzer and atheris print."""

from __future__ import annotations

import pytest

from tests.fuzz.atheris_target import Target, verdict

QUIET = """\
INFO: Instrumenting zbank.domain
--- wire: 1.67 minutes
#1024\tNEW    cov: 186 ft: 566 corp: 65/7970b lim: 65536 exec/s: 0 rss: 63Mb
Done 16384 runs in 6 second(s)
stat::number_of_executed_units: 16384
"""
CRASH = """\
#2\tINITED cov: 2 ft: 2 corp: 1/1b exec/s: 0 rss: 52Mb

 === Uncaught Python exception: ===
AssertionError: too long
Traceback (most recent call last):
==6756== ERROR: libFuzzer: fuzz target exited
artifact_prefix='/tmp/zbank-wire-'; Test unit written to /tmp/zbank-wire-crash-dd26
"""
HANG = """\
==6756== ERROR: libFuzzer: timeout after 3 seconds
artifact_prefix='/tmp/zbank-wire-'; Test unit written to /tmp/zbank-wire-timeout-dd26
"""


def heard(text: str, code: int, name: str = "wire") -> Target:
    target = Target(name)
    for line in text.splitlines(keepends=True):
        assert target.hear(line) != line.startswith("INFO: Instrumenting")
    target.code = code
    return target


def test_nothing_found() -> None:
    assert list(verdict([heard(QUIET, 0), heard(QUIET, 0, "journal")])) == ["nothing found in 32,768 runs"]


@pytest.mark.parametrize(
    ("text", "what", "kept"),
    [(CRASH, "AssertionError: too long", "crash-dd26"), (HANG, "timeout", "timeout-dd26")],
)
def test_a_finding_says_what_and_how_to_see_it_again(text: str, what: str, kept: str) -> None:
    (line,) = verdict([heard(text, 77), heard(QUIET, 0, "journal")])
    assert line.startswith(f"FOUND: wire: {what}, replay with ")
    assert line.endswith(f" -m tests.fuzz.atheris_target --replay /tmp/zbank-wire-{kept} wire")


def test_a_fuzzer_that_fails_has_not_found_nothing() -> None:
    assert list(verdict([heard("ImportError: no such thing\n", 1)])) == [
        "FAILED: the fuzzer of wire ended with exit code 1 and no finding: see above"
    ]
