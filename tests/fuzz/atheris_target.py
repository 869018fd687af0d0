"""The long fuzzer: `python -m tests.fuzz.atheris_target --minutes 5 [wire|journal|actor]`.

Coverage-guided by atheris (libFuzzer for Python). Without a target all three run, one after the other, and share the
minutes. A finding is printed, the bytes that led to it are kept in a file that is named (`--replay FILE TARGET` runs them
again), and the exit code is 1. A hang is an input that takes longer than HANG_S, a growth of memory a process larger than
MAX_PROCESS_MIB. The last lines are the verdict.
"""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = ("wire", "journal", "actor")
HANG_S = 10
MAX_PROCESS_MIB = 1024
MAX_INPUT_BYTES = 1 << 16
INSTRUMENTED = ["zbank.domain", "zbank.protocol", "zbank.storage", "zbank.transport.engine", "msgpack.fallback"]
EXIT_INTERRUPTED = 130

_NOISE = "INFO: Instrumenting "
_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\s")
_KEPT = re.compile(r"Test unit written to (.+)")
_WHAT = re.compile(
    r"libFuzzer: (timeout|out-of-memory)|^(\w+(?:\.\w+)*(?:Error|Exception|Violation|Exit|Interrupt)\b.*)"
)


class Target:
    """What the fuzzer of one target has said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0
        self.what = ""  #: the error of the finding, if it was named
        self.kept = ""  #: the file with the bytes of the finding; "" = nothing was found
        self.code = 0  #: exit code of its process

    @property
    def is_fine(self) -> bool:
        """It has found nothing, and did not fail."""
        return not self.kept and not self.code

    def hear(self, line: str) -> bool:
        """Take in the next line; is it worth reading?"""
        if found := _RUNS.search(line):
            self.runs = max(self.runs, int(found[1] or found[2]))
        elif found := _KEPT.search(line):
            self.kept = found[1].strip()
        elif not self.what and (found := _WHAT.search(line)):
            self.what = (found[1] or found[2]).strip()
        return not line.startswith(_NOISE)


def main() -> int:
    """Fuzz; gives the exit code: 0 nothing found, 1 something, 2 wrong usage or no atheris, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.atheris_target", description="Fuzz the decoders and the actors."
    )
    parser.add_argument("--minutes", type=float, default=5, help="in all, shared by the targets (default: 5)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the target once, on the bytes of this file")
    parser.add_argument("target", nargs="?", choices=NAMES, help="default: all, one after the other")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.target or "wire", arguments.replay)
    try:
        import atheris  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        print("atheris is not installed: `make fuzz` does that (Linux; elsewhere it needs clang)", file=sys.stderr)
        return 2
    names = [arguments.target] if arguments.target else NAMES
    each = arguments.minutes / len(names)
    print(f"{arguments.minutes:g} minutes in all: {each:.3g} each for {', '.join(names)}", file=sys.stderr, flush=True)
    targets = [Target(name) for name in names]
    try:
        for target in targets:
            _watch(target, each)
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C: {'; '.join(verdict(targets))}", flush=True)
        return EXIT_INTERRUPTED
    print("\n".join(verdict(targets)), flush=True)
    return 0 if all(target.is_fine for target in targets) else 1


def verdict(targets: Sequence[Target]) -> Iterator[str]:
    """The last line; one for each finding when there are any."""
    for target in targets:
        if target.kept:
            words = [sys.executable, "-m", "tests.fuzz.atheris_target", "--replay", target.kept, target.name]
            yield f"FOUND: {target.name}: {target.what or 'see above'}, replay with {shlex.join(words)}"
        elif not target.is_fine:
            yield f"FAILED: the fuzzer of {target.name} ended with exit code {target.code} and no finding: see above"
    if all(target.is_fine for target in targets):
        yield f"nothing found in {sum(target.runs for target in targets):,} runs"


def _watch(target: Target, minutes: float) -> None:
    """Fuzz in a process of its own, for libFuzzer ends the one that it runs in; show what it says."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"from tests.fuzz.atheris_target import fuzz; fuzz({target.name!r}, {minutes!r}, {folder!r})"
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if target.hear(line):
                        print(line, end="", file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                process.kill()
                raise
        target.code = process.returncode


def replay(name: str, path: Path) -> int:
    """What a finding was, again; needs no atheris. Raises what the target raises."""
    from tests.fuzz.targets import TARGETS

    TARGETS[name].run(path.read_bytes())
    print(f"nothing is wrong with {path} as {name}")
    return 0


def fuzz(name: str, minutes: float, folder: str) -> None:
    """Fuzz one target in this process, with its inputs in this folder. Does not return when libFuzzer ends it."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS, mutated
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        Path(folder, f"seed-{number}").write_bytes(seed)
    flags = [
        f"-max_total_time={max(1, round(minutes * 60))}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MAX_PROCESS_MIB}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-artifact_prefix={tempfile.gettempdir()}/zbank-{name}-",
        "-print_final_stats=1",
    ]

    def mutator(body: bytes, max_bytes: int, seed: int) -> bytes:
        return mutated(body, max_bytes, seed, atheris.Mutate)

    hooks = {"custom_mutator": mutator} if target.is_msgpack else {}
    print(f"--- {name}: {minutes:.3g} minutes", file=sys.stderr, flush=True)
    atheris.Setup([sys.argv[0], *flags, folder], target.run, **hooks)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
