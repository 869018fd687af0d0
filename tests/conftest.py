"""What holds for all tests: signals that whoever started them ignores (nohup, a job in the background) do their work here."""

from __future__ import annotations

import os
import re
import signal

import pytest
from hypothesis import settings

from zbank.apps.chaos.ports import PORTS, PORTS_VARIABLE

for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:  # it would be handed on to every process that a test starts
        signal.signal(_number, signal.SIG_DFL)

# The helpers assert, too: let them say what was wrong. Not the simulation's: its reports are made of what they raise.
for _folder in ("acceptance", "attack", "storage", "transport", "ui", "unit"):
    pytest.register_assert_rewrite(f"tests.{_folder}")

# Workers side by side draw their ports from ranges of their own; so do the processes that they start.
_MAX_WORKERS = 8
_worker = int((re.findall(r"\d+", os.environ.get("PYTEST_XDIST_WORKER", "")) or ["0"])[0]) % _MAX_WORKERS
_share = len(PORTS) // _MAX_WORKERS
os.environ[PORTS_VARIABLE] = f"{PORTS.start + _worker * _share}-{PORTS.start + (_worker + 1) * _share - 1}"

# The everyday suite plays the same examples each time: what nobody has changed must not fail. ZBANK_RANDOM_TESTS=1 (set by
# `make test-long`) looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("random" if os.environ.get("ZBANK_RANDOM_TESTS") else "same")
