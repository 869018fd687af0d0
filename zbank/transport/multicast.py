"""Announcing a coordinator on the local network and looking for one, by mDNS (RFC 6762, 6763). Decides nothing: what is
said and what is believed is in `discovery`.

zeroconf is an optional package and imported only where it is needed: it brings asyncio along.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from zbank.errors import InvalidInput, ZbankError
from zbank.transport.discovery import (
    SERVICE,
    Announcement,
    CannotLook,
    Found,
    PackageMissing,
    host_name,
    instance_name,
    read,
    texts,
    usable,
)

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

INSTALL = "pip install 'zbank[discovery]'"
LOOK_S = 2.5  #: a lost packet is asked for again after a second
ENOUGH_S = 1.6  #: all have answered by then: at once, or a second later who has just given the same answer (RFC 6762, 6)
POLL_S = 0.05
ASK_MS = 300  #: for what an announcement left out
MAX_INSTANCES = 64  #: looked at in one look: anybody may announce any number
LOOK_AGAIN_S = 10.0  #: between two looks of a branch that misses its coordinator
INTERFACES_EVERY_S = 10.0  #: networks come and go: whoever is announced looks so often
TTL_S = 60  #: so long others may remember one that was killed
CLOSE_S = 3.0  #: to withdraw; the coordinator's end does not wait longer

log = logging.getLogger("zbank")


def _zeroconf() -> Any:
    """The package. Raises PackageMissing."""
    try:
        import zeroconf
    except ImportError as error:
        raise PackageMissing(
            f"announcing and finding a bank on the local network needs a package that is not installed: {INSTALL}"
        ) from error
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # a lost network is told here, in one line
    return zeroconf


def _open(package: Any) -> Zeroconf:
    """Sockets on all interfaces. Raises OSError, zeroconf.Error."""
    try:
        net: Zeroconf = package.Zeroconf()
    except RuntimeError as error:  # it found no interface
        raise OSError(errno.ENETDOWN, "this machine has no network") from error
    return net


# --- looking ----------------------------------------------------------------------------------------------------------


def look(wait_s: float = LOOK_S, cluster: str = "") -> list[Found]:
    """The coordinators that are announced now, by cluster and address; with the name of a cluster the look ends early when
    that has answered. Raises PackageMissing, CannotLook."""
    package = _zeroconf()
    try:
        with closing(_open(package)) as net:
            return sorted(_collect(package, net, wait_s, cluster))
    except (OSError, package.Error) as error:
        raise CannotLook(f"the local network cannot be asked ({_reason(error)}): give the address by --endpoint") from error


def _collect(package: Any, net: Zeroconf, wait_s: float, cluster: str) -> set[Found]:
    names: dict[str, ServiceInfo] = {}  #: that are not complete yet
    seen: set[str] = set()

    def noted(*, name: str, state_change: Any, **_: Any) -> None:
        if state_change is not package.ServiceStateChange.Removed and name not in seen and len(seen) < MAX_INSTANCES:
            seen.add(name)
            names[name] = package.ServiceInfo(SERVICE, name)

    found: set[Found] = set()
    enough_s = time.monotonic() + ENOUGH_S
    end_s = time.monotonic() + wait_s
    # Asked for answers to all: one to this address alone may go to another process that shares the port, such as avahi.
    package.ServiceBrowser(net, SERVICE, handlers=[noted], question_type=package.DNSQuestionType.QM)  # ends with `net`
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left_s))
        waiting = list(names.items())
        for name, info in waiting:  # most say all at once
            if info.load_from_cache(net):
                found |= _told(info)
                del names[name]
        for _, info in [(name, info) for name, info in waiting if name in names][:1]:
            info.request(net, min(ASK_MS, max(1, left_s * 1000)))
        if time.monotonic() >= enough_s and any(one.cluster == cluster for one in found):
            break
    return found


def _told(info: ServiceInfo) -> set[Found]:
    one = read(info.properties, info.parsed_addresses(), info.port)
    return set() if one is None else {one}


class Search:
    """Looks for the coordinator of one cluster in the background, as long as somebody asks. It never delays who asks."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._thread: threading.Thread | None = None
        self._next_s = 0.0
        self._places: tuple[str, ...] = ()
        self._told = ""  #: why looking failed, as last said in the log

    def places(self) -> tuple[str, ...]:
        """Where it was announced when last looked; begins another look if the last one is old. What was found is kept until
        something else is: a coordinator often comes back to where it was."""
        idle = self._thread is None or not self._thread.is_alive()
        if idle and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + LOOK_AGAIN_S
            self._thread = threading.Thread(target=self._look, name="zbank looks for its coordinator", daemon=True)
            self._thread.start()
        return self._places

    def _look(self) -> None:
        try:
            found = tuple(one.endpoint for one in look(cluster=self._cluster) if one.cluster == self._cluster)
        except Exception as error:  # whatever the network does to it, the branch goes on
            self._fails(error)
            return
        self._told = ""
        if found and found != self._places:
            log.info("cluster %r is announced on the local network at %s", self._cluster, ", ".join(found))
            self._places = found

    def _fails(self, error: Exception) -> None:
        text = error.detail if isinstance(error, ZbankError) else f"the local network cannot be asked ({_reason(error)})"
        if text != self._told:
            self._told = text
            log.warning("cannot look for the coordinator of cluster %r: %s", self._cluster, text)


# --- being announced --------------------------------------------------------------------------------------------------


class Announcer:
    """Announces a coordinator until it is closed, from a thread of its own: it neither delays nor ends the coordinator.

    When this machine's addresses change it begins anew; when the network takes no multicast it says so once and tries on.
    """

    def __init__(self, announcement: Announcement, ttl_s: int = TTL_S) -> None:
        self._announcement = announcement
        self._ttl_s = ttl_s
        self._stop = threading.Event()
        self._told = ""  #: why it is not announced, as last said in the log
        self._thread = threading.Thread(target=self._run, name="zbank is announced", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Withdraw the announcement; waits a little for that, and not for ever."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            package = _zeroconf()
        except PackageMissing as error:
            log.info("not announced: %s", error)
            return
        standing: Zeroconf | None = None
        before: object = None
        while not self._stop.is_set():
            try:
                now = _interfaces()
                if standing is None or now != before:
                    _close(standing)
                    standing, before = None, now
                    standing = self._announce(package)
            except Exception as error:  # whatever the network does to it, the coordinator serves on
                self._fails(error)
            self._stop.wait(INTERFACES_EVERY_S)
        _close(standing)

    def _announce(self, package: Any) -> Zeroconf:
        """A responder that answers for this coordinator. Raises OSError, zeroconf.Error, InvalidInput."""
        info = self._service(package)
        net = _open(package)
        try:
            net.register_service(info, allow_name_change=True)  # another cluster may have the same name
        except BaseException:
            _close(net)
            raise
        self._told = ""
        place = f"{', '.join(info.parsed_addresses())} port {info.port}"
        log.info("cluster %r is announced on the local network: %s", self._announcement.cluster, place)
        return net

    def _service(self, package: Any) -> ServiceInfo:
        cluster, host, port = self._announcement
        addresses = usable(_resolve(host))
        if not addresses:
            raise InvalidInput(f"{host} is no address that others reach: give one by --advertise, or endpoint in the file")
        name = f"{instance_name(cluster)}.{SERVICE}"
        info: ServiceInfo = package.ServiceInfo(
            SERVICE,
            name,
            parsed_addresses=addresses,
            port=port,
            properties=texts(cluster),
            server=host_name(addresses[0], port),
            host_ttl=self._ttl_s,
            other_ttl=self._ttl_s,
        )
        return info

    def _fails(self, error: Exception) -> None:
        text = _reason(error)
        if text != self._told:
            self._told = text
            log.warning("cannot be announced on the local network, so others have to be told its address: %s", text)


def _interfaces() -> frozenset[str]:
    """The addresses of this machine."""
    import ifaddr  # zeroconf needs it, too

    return frozenset(str(one.ip) for adapter in ifaddr.get_adapters() for one in adapter.ips)


def _resolve(host: str) -> list[str]:
    """The addresses of a name, or the address itself. Raises OSError."""
    return [str(one[4][0]) for one in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)]


def _close(net: Zeroconf | None) -> None:
    """Withdraw and close; a network that has gone is no reason to complain."""
    if net is not None:
        with suppress(Exception):
            net.close()


def _reason(error: Exception) -> str:
    """What a person can make of it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
