"""One end of a control connection: whole JSON lines in and out over a socket, without waiting."""

from __future__ import annotations

import socket
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

MAX_LINE_BYTES = 1 << 20
SEND_LIMIT_S = 2.0  #: who does not read for so long is as good as gone
BLOCK_BYTES = 65_536

Said = TypeVar("Said")

_encode = msgspec.json.Encoder().encode


class LineClosed(Exception):
    """The other end is gone, or says what cannot be understood."""


class Line(Generic[Said]):
    """A connected socket that carries structs; `Said` is what the other end says."""

    def __init__(self, connection: socket.socket, decoder: msgspec.json.Decoder[Said]) -> None:
        connection.settimeout(SEND_LIMIT_S)
        self._socket = connection
        self._decoder = decoder
        self._rest = b""

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, said: Struct) -> None:
        """Send one line; raises LineClosed."""
        try:
            self._socket.sendall(_encode(said) + b"\n")
        except OSError as error:
            raise LineClosed from error

    def receive(self, wait_s: float = 0) -> list[Said]:
        """The whole lines that have arrived; waits for the first byte for `wait_s` at most. Raises LineClosed."""
        self._socket.settimeout(wait_s)
        try:
            block = self._socket.recv(BLOCK_BYTES)
        except (BlockingIOError, TimeoutError):
            return []
        except OSError as error:
            raise LineClosed from error
        finally:
            self._socket.settimeout(SEND_LIMIT_S)
        *lines, self._rest = (self._rest + block).split(b"\n")
        if not block or len(self._rest) > MAX_LINE_BYTES:
            raise LineClosed
        try:
            return [self._decoder.decode(line) for line in lines]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LineClosed from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
