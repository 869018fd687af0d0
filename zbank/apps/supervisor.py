"""Child processes kept running: started, listened to, started again when they end, and all stopped in the end.

One thread does it all, so that nothing but this thread exists when a child is forked. Each child is the leader of a
process group of its own (Ctrl-C in a terminal reaches only the launcher, which then stops them in order). On Linux the
kernel kills the children when the launcher dies, however it dies.
"""

from __future__ import annotations

import ctypes
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

RESTART_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  #: after the 1st, 2nd, … end in a row; then the last
HEALTHY_S = 30.0  #: who ran so long starts again from the first delay
STOP_LIMIT_S = 15.0  #: from SIGTERM to SIGKILL
EXIT_USAGE = 2  #: a child that ends so is set up wrongly: starting it again would not help
MAX_LINE_BYTES = 16_384

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Say = Callable[[str], None]


def die_with(parent: int) -> None:
    """Called by a child: from now on the kernel ends it when its parent, the process `parent`, dies. Linux only."""
    if _libc is not None and _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0 and os.getppid() != parent:
        os._exit(1)  # it died in between


class Child:
    """One command and its process, over all its starts."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], delays_s: Sequence[float]
    ) -> None:
        self.name = name
        self._delays_s = delays_s
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0  #: monotonic; of the last start
        self.exit_code = 0  #: of the last end
        self.ends_in_a_row = 0
        self.due_s = 0.0  #: monotonic; when to start it (again)
        self._command = list(command)
        self._environment = dict(environment)
        self._rest = b""  # of its output, after the last whole line

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        return None if self.process is None else self.process.pid

    def start(self) -> None:
        """Start the process. It dies with this one."""
        self._rest = b""
        self.started_s = time.monotonic()
        parent = os.getpid()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            process_group=0,
            preexec_fn=lambda: die_with(parent),
        )
        os.set_blocking(self.output_fd, False)

    @property
    def output_fd(self) -> int:
        """The reading end of the running process's stdout and stderr."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def read_lines(self) -> tuple[list[str], bool]:
        """The whole lines that it has written since, and whether it may write more."""
        more = True
        try:
            while more and len(self._rest) < MAX_LINE_BYTES * 4:
                block = os.read(self.output_fd, 65_536)
                more = bool(block)
                self._rest += block
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        if self._rest and (not more or len(self._rest) > MAX_LINE_BYTES):
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace") for line in lines], more

    def send(self, number: signal.Signals) -> None:
        """A signal to its whole process group, if it runs."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def delay_after_end(self, now_s: float) -> float:
        """Note that it ended; seconds until it is to start again."""
        self.ends_in_a_row = 1 if now_s - self.started_s >= HEALTHY_S else self.ends_in_a_row + 1
        return self._delays_s[min(self.ends_in_a_row, len(self._delays_s)) - 1]


class Supervisor:
    """Keeps a set of children running until told to stop."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        say: Say,
        delays_s: Sequence[float] = RESTART_DELAYS_S,
        *,
        prefix: bool = True,
    ) -> None:
        """`commands` by name; `say` gets every line to print, the children's with a `name | ` before them unless `prefix` is
        false; `delays_s` go before the 1st, 2nd, … start again in a row, the last before all others."""
        self.children = [Child(name, command, environment, delays_s) for name, command in commands.items()]
        self.hopeless: Child | None = None  #: one that ended because it is set up wrongly
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._width = max(len(child.name) for child in self.children)
        self._prefix = prefix

    def turn(self, timeout_s: float) -> None:
        """Start what is due, pass output on as it comes, notice who ended. Returns after `timeout_s` at the latest."""
        now_s = time.monotonic()
        for child in self.children:
            if child.process is None and child.due_s <= now_s:
                child.start()
                self._selector.register(child.output_fd, selectors.EVENT_READ, child)
                if child.ends_in_a_row:
                    self._say(f"{child.name} is started again (process id {child.pid})")
        self._listen(timeout_s)
        for child in self.children:
            if self._has_ended(child):
                self._after_end(child)

    def stop(self, is_urgent: Callable[[], bool]) -> None:
        """Stop all: SIGTERM, then SIGKILL for who is still there after STOP_LIMIT_S, or as soon as `is_urgent`."""
        for child in self.children:
            child.send(signal.SIGTERM)
            child.send(signal.SIGCONT)  # a paused one could not end
        end_s = time.monotonic() + STOP_LIMIT_S
        while self._running() and time.monotonic() < end_s and not is_urgent():
            self._listen(0.1)
            for child in self._running():
                self._has_ended(child)
        for child in self._running():
            self._say(f"{child.name} does not stop: killed")
            child.send(signal.SIGKILL)
            assert child.process is not None
            child.process.wait()
            self._has_ended(child)
        self._selector.close()

    def _running(self) -> list[Child]:
        return [child for child in self.children if child.process is not None]

    def _listen(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if not self._pass_on(key.data):
                self._selector.unregister(key.fd)

    def _pass_on(self, child: Child) -> bool:
        lines, more = child.read_lines()
        for line in lines:
            self._say(f"{child.name:<{self._width}} | {line}" if self._prefix else line)
        return more

    def _has_ended(self, child: Child) -> bool:
        """Did it end just now? Then its last output is passed on and its process is let go."""
        process = child.process
        if process is None or process.poll() is None:
            return False
        assert process.stdout is not None
        if child.output_fd in self._selector.get_map():
            self._pass_on(child)
            self._selector.unregister(child.output_fd)
        process.stdout.close()
        child.process = None
        child.exit_code = process.returncode
        return True

    def _after_end(self, child: Child) -> None:
        if child.exit_code == EXIT_USAGE:
            self.hopeless = child
            child.due_s = math.inf
            return
        now_s = time.monotonic()
        delay_s = child.delay_after_end(now_s)
        child.due_s = now_s + delay_s
        often = f", {child.ends_in_a_row} times in a row" if child.ends_in_a_row > 1 else ""
        self._say(f"{child.name} ended ({describe_exit(child.exit_code)}){often}: it starts again in {delay_s:g} s")


def describe_exit(code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
