"""A proxy that records every byte of every connection through it, and one who plays a recording back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

LIMIT_S = 3.0


class Recorder:
    """Listens at a port, connects on to another; what passes is kept, by connection: (to the server, to the caller)."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.tapes: list[tuple[bytearray, bytearray]] = []
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def heard(self) -> int:
        """How many bytes the callers have sent."""
        return sum(len(to_server) for to_server, _ in self.tapes)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                caller.close()
                continue
            tape = (bytearray(), bytearray())
            self.tapes.append(tape)
            self._open += [caller, server]
            for source, sink, kept in ((caller, server, tape[0]), (server, caller, tape[1])):
                threading.Thread(target=self._pass_on, args=(source, sink, kept), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with suppress(OSError):
            while heard := source.recv(65_536):
                kept += heard
                sink.sendall(heard)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept, who else keeps the port
        self._listener.close()
        for one in self._open:
            one.close()


def play_back(port: int, tape: bytes) -> bytes:
    """Send a recording to a server, a piece at a time, as fast as it takes it; what it said to that."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as one:
        one.settimeout(0.3)
        with suppress(OSError):
            for first in range(0, len(tape), 1_000):
                one.sendall(tape[first : first + 1_000])
                with suppress(TimeoutError):
                    said += one.recv(65_536)
    return said


class FalseServer:
    """Says to everybody who connects what a server once said."""

    def __init__(self, port: int, tape: bytes) -> None:
        self.callers = 0
        self._tape = tape
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.callers += 1
            with caller, suppress(OSError):
                caller.settimeout(0.3)
                for first in range(0, len(self._tape), 200):
                    caller.sendall(self._tape[first : first + 200])
                    with suppress(TimeoutError):
                        caller.recv(65_536)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept, who else keeps the port
        self._listener.close()
