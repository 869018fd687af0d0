"""Loopback ports: free ones, and who is behind one."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PORTS = range(20_000, 32_000)  #: below those that systems give to outgoing connections, so that a port stays free
PORTS_VARIABLE = "ZBANK_CHAOS_PORTS"  #: `first-last`, of who runs several at once: each draws from its own
TRIES = 200


def free_ports(count: int, chance: random.Random) -> range:
    """`count` neighbouring loopback ports that nobody listens on. Raises OSError when there are none."""
    first_port, _, last_port = os.environ.get(PORTS_VARIABLE, f"{PORTS.start}-{PORTS.stop - 1}").partition("-")
    for _ in range(TRIES):
        first = chance.randrange(int(first_port), int(last_port) + 2 - count)
        found = range(first, first + count)
        if all(_is_free(port) for port in found):
            return found
    raise OSError(f"no {count} neighbouring free ports were found on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def owner_of(port: int, process_ids: Mapping[str, int]) -> str | None:
    """Which of these processes connects from the loopback `port`; None when it is none of them, or not on Linux."""
    inode = _inode_of(port)
    if inode is not None:
        wanted = f"socket:[{inode}]"
        for name, process_id in process_ids.items():
            with suppress(OSError):  # it ended meanwhile
                for file in os.listdir(f"/proc/{process_id}/fd"):
                    with suppress(OSError):  # it was closed meanwhile
                        if os.readlink(f"/proc/{process_id}/fd/{file}") == wanted:
                            return name
    return None


def _inode_of(port: int) -> str | None:
    with suppress(OSError):
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1] == f"0100007F:{port:04X}" and fields[9] != "0":
                return fields[9]
    return None
