"""Whether this machine has a network with multicast. Where it has none the tests of discovery are left out, and say so."""

from __future__ import annotations

import ipaddress
import socket
from functools import cache

import pytest

GROUP = "224.0.0.251"  #: of mDNS (RFC 6762)
WAIT_S = 2.0


@cache
def outward_address() -> str:
    """This machine's address for others; "" when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address = str(probe.getsockname()[0])
    return "" if ipaddress.ip_address(address).is_loopback else address


@cache
def why_not() -> str:
    """Why no multicast comes back on the outward interface; "" when it does."""
    address = outward_address()
    if not address:
        return "no address but loopback"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            interface = socket.inet_aton(address)
            one.bind(("", 0))
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + interface)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            one.settimeout(WAIT_S)
            one.sendto(b"zbank", (GROUP, one.getsockname()[1]))
            return "" if one.recv(100) == b"zbank" else "something else came back"
    except OSError as error:
        return str(error)


needs_multicast = pytest.mark.skipif(bool(why_not()), reason=f"NO MULTICAST HERE, discovery is not tested: {why_not()}")
