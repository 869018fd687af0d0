"""Where a bank is in the local network: what an announcement says, what of it is believed, and which bank is meant.

An announcement is a hint and nothing more: mDNS proves nothing, so anybody in the network can say anything. Who may be
talked to is decided by keys, when a connection is made. No sockets here: they are in `multicast`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zbank.errors import InvalidConfig, InvalidInput, ZbankError
from zbank.protocol.messages import COORDINATOR, PROTOCOL_VERSION

SERVICE = "_zbank._tcp.local."
MAX_LABEL_BYTES = 63  #: one part of a name (RFC 1035)
MAX_TEXT_BYTES = 255  #: `key=value` (RFC 6763)
MAX_CLUSTER_CHARS = 64  #: as in the cluster file
MAX_PORT = 65_535
MAX_VERSION_DIGITS = 6
MAX_PLACES = 8  #: at which a branch looks for its coordinator, one after the other
MAX_LISTED = 10  #: in an error


class PackageMissing(InvalidConfig):
    """The optional package is not installed."""


class CannotLook(ZbankError):
    """The network takes no multicast, or this machine has no network."""

    code = "cannot_look"


class NotFound(ZbankError):
    """No cluster of this name announces itself."""

    code = "cluster_not_found"


class SeveralFound(ZbankError):
    """More than one place is announced under this name: nobody can say which is meant."""

    code = "several_found"


class Found(NamedTuple):
    """A coordinator that was announced; nobody has proved that it is one."""

    cluster: str
    endpoint: str  #: `tcp://address:port`
    version: int  #: of the protocol


class Announcement(NamedTuple):
    """What a coordinator tells the network of itself: all of it may be read by anybody."""

    cluster: str
    host: str  #: of its endpoint: a name or an address
    port: int


def texts(cluster: str) -> dict[str, str]:
    """What an announcement says beside address and port. Raises InvalidInput for a name that does not fit."""
    if len(f"cluster={cluster}".encode()) > MAX_TEXT_BYTES:
        raise InvalidInput(f"the cluster's name is too long for an announcement: {cluster!r}")
    return {"cluster": cluster, "protocol": str(PROTOCOL_VERSION), "role": COORDINATOR}


def instance_name(cluster: str) -> str:
    """The name under which other tools list it: the cluster's, without what a name in DNS cannot have.

    zbank itself reads the cluster's name from the texts: two clusters of one name get different instance names.
    """
    shown = "".join(char if char.isprintable() and char not in ".\\" else "-" for char in cluster)
    return shown.encode()[:MAX_LABEL_BYTES].decode(errors="ignore").strip() or "zbank"


def host_name(address: str, port: int) -> str:
    """The name of the address record: of this address alone, so that it is in nobody's way."""
    label = "".join(char if char.isalnum() else "-" for char in address)
    return f"zbank-{label}-{port}.local."


def usable(addresses: Iterable[str]) -> list[str]:
    """Of these addresses those that other machines may reach, IPv4 first."""
    found = set()
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:  # with the name of an interface, as in fe80::1%eth0
            continue
        here_only = address.is_loopback or address.is_unspecified or address.is_multicast
        if not here_only and not (address.version == 6 and address.is_link_local):
            found.add(address)
    return [str(address) for address in sorted(found, key=lambda one: (one.version, int(one)))]


def read(properties: Mapping[bytes, bytes | None], addresses: Iterable[str], port: int | None) -> Found | None:
    """What an announcement from the network says; None when it is none of a coordinator that could be used."""
    try:
        cluster = (properties.get(b"cluster") or b"").decode()
        version = (properties.get(b"protocol") or b"").decode("ascii")
    except UnicodeDecodeError:
        return None
    reachable = usable(addresses)
    well_formed = (
        properties.get(b"role") == COORDINATOR.encode()
        and 1 <= len(cluster) <= MAX_CLUSTER_CHARS
        and cluster.isprintable()
        and version.isdigit()
        and len(version) <= MAX_VERSION_DIGITS
        and port is not None
        and 1 <= port <= MAX_PORT
    )
    if not well_formed or not reachable:
        return None
    host = f"[{reachable[0]}]" if ":" in reachable[0] else reachable[0]
    return Found(cluster, f"tcp://{host}:{port}", int(version))


def choose(found: Sequence[Found], cluster: str) -> Found:
    """The one place that is announced under the name of this cluster. Raises NotFound, SeveralFound."""
    places = {one.endpoint: one for one in found if one.cluster == cluster}
    if not places:
        others = "; others are there: " + listed(found) if found else ""
        raise NotFound(
            f"no coordinator of cluster {cluster!r} announces itself on this network{others}. Start it, or give its address "
            "by --endpoint"
        )
    if len(places) > 1:
        raise SeveralFound(
            f"cluster {cluster!r} is announced at more than one place on this network: {listed(list(places.values()))}. "
            "Say which one by --endpoint"
        )
    return next(iter(places.values()))


def listed(found: Sequence[Found]) -> str:
    """Names and places in one line."""
    shown = [f"{one.cluster!r} at {one.endpoint}" for one in found[:MAX_LISTED]]
    return ", ".join(shown) + (f" and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else "")


def next_place(told: str, announced: Sequence[str], now_at: str) -> str:
    """Where to try after `now_at` has been silent: the place that was told and those announced, in turn."""
    places = list(dict.fromkeys([told, *announced]))[:MAX_PLACES]
    after = places.index(now_at) + 1 if now_at in places else 0
    return places[after % len(places)]
