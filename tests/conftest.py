"""What holds for all tests: signals that whoever started them ignores (nohup, a job in the background) do their work here."""

from __future__ import annotations

import signal

for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:  # it would be handed on to every process that a test starts
        signal.signal(_number, signal.SIG_DFL)
