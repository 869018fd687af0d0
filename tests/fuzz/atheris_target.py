"""The long fuzzer: `python -m tests.fuzz.atheris_target --minutes 5 [wire|journal|actor]`.

Coverage-guided by atheris (libFuzzer for Python). Without a target all three run, one after the other, and share the
minutes. A finding is printed, the bytes that led to it are kept in a file that is named (`--replay FILE` runs them again),
and the exit code is not 0. A hang is an input that takes
longer than HANG_S, a growth of memory a process larger than MAX_PROCESS_MIB.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("wire", "journal", "actor")
HANG_S = 10
MAX_PROCESS_MIB = 1024
MAX_INPUT_BYTES = 1 << 16
INSTRUMENTED = ["zbank.domain", "zbank.protocol", "zbank.storage", "zbank.transport.engine", "msgpack.fallback"]


def main() -> int:
    """Fuzz; gives the exit code: 0 when nothing was found, 2 when atheris is not there."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders and the actors.")
    parser.add_argument("--minutes", type=float, default=5, help="in all (default: 5)")
    parser.add_argument("--replay", type=Path, help="run the target once, on the bytes of this file")
    parser.add_argument("target", nargs="?", choices=NAMES, help="default: all, one after the other")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.target or "wire", arguments.replay)
    try:
        import atheris  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        print("atheris is not installed: `make fuzz` does that (Linux; elsewhere it needs clang)", file=sys.stderr)
        return 2
    if arguments.target:
        return fuzz(arguments.target, arguments.minutes)
    share = str(arguments.minutes / len(NAMES))
    commands = [[sys.executable, "-m", "tests.fuzz.atheris_target", "--minutes", share, name] for name in NAMES]
    return max([abs(subprocess.run(command, check=False).returncode) for command in commands])


def replay(name: str, path: Path) -> int:
    """What a finding was, again; needs no atheris. Raises what the target raises."""
    from tests.fuzz.targets import TARGETS

    TARGETS[name].run(path.read_bytes())
    print(f"nothing is wrong with {path} as {name}")
    return 0


def fuzz(name: str, minutes: float) -> int:
    """Fuzz one target in this process. Does not return when libFuzzer ends it."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS, mutated
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
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
        print(f"--- {name}: {minutes:g} minutes", file=sys.stderr, flush=True)
        atheris.Setup([sys.argv[0], *flags, folder], target.run, **hooks)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
