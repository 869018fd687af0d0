"""Announcing and looking, over the multicast of this machine; and what happens where there is none."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest
import zeroconf

from tests.transport.lan import needs_multicast, outward_address
from zbank.transport import multicast
from zbank.transport.discovery import Announcement, CannotLook, PackageMissing
from zbank.transport.multicast import Announcer, Search, look

NAME = f"test {os.getpid()}"
LIMIT_S = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.05)


def places(cluster: str) -> list[str]:
    return [one.endpoint for one in look(cluster=cluster) if one.cluster == cluster]


@needs_multicast
class TestOnTheNetwork:
    def test_announced_found_and_withdrawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        endpoint = f"tcp://{outward_address()}:9777"
        may_open = threading.Event()
        real = zeroconf.Zeroconf

        def open_one() -> zeroconf.Zeroconf:
            assert may_open.wait(LIMIT_S)
            return real()

        monkeypatch.setattr(zeroconf, "Zeroconf", open_one)
        announcer = Announcer(Announcement(NAME, outward_address(), 9777))  # nobody waits for it
        try:
            may_open.set()
            wait_until(lambda: places(NAME) == [endpoint])
            search = Search(NAME)
            may_open.clear()
            assert search.places() == ()  # nor for this
            may_open.set()
            wait_until(lambda: search.places() == (endpoint,))
        finally:
            announcer.close()
        wait_until(lambda: places(NAME) == [])

    def test_two_of_one_name_are_both_seen(self) -> None:
        both = [Announcer(Announcement(NAME, outward_address(), port)) for port in (9778, 9779)]
        try:
            wanted = [f"tcp://{outward_address()}:{port}" for port in (9778, 9779)]
            wait_until(lambda: places(NAME) == wanted)
        finally:
            for one in both:
                one.close()

    def test_a_change_of_the_interfaces_begins_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(multicast, "INTERFACES_EVERY_S", 0.1)
        here = [frozenset({"1"})]
        monkeypatch.setattr(multicast, "_interfaces", lambda: here[0])
        opened: list[object] = []
        real = zeroconf.Zeroconf

        def open_one() -> zeroconf.Zeroconf:
            opened.append(None)
            return real()

        monkeypatch.setattr(zeroconf, "Zeroconf", open_one)
        announcer = Announcer(Announcement(NAME, outward_address(), 9780))
        try:
            wait_until(lambda: len(opened) == 1)
            here[0] = frozenset({"1", "2"})
            wait_until(lambda: len(opened) == 2)
        finally:
            announcer.close()


class TestWithoutOne:
    @pytest.fixture(autouse=True)
    def no_multicast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise OSError(101, "Network is unreachable")

        monkeypatch.setattr(zeroconf, "Zeroconf", fail)
        monkeypatch.setattr(multicast, "INTERFACES_EVERY_S", 0.02)

    def test_the_announcer_warns_once_and_tries_on(self, caplog: pytest.LogCaptureFixture) -> None:
        announcer = Announcer(Announcement("lan", "10.0.0.1", 9000))
        wait_until(lambda: bool(caplog.records))
        time.sleep(0.2)
        announcer.close()
        [record] = [one for one in caplog.records if one.name == "zbank"]
        assert record.levelno == logging.WARNING
        assert record.getMessage().endswith("others have to be told its address: Network is unreachable")

    def test_looking_says_why_not(self) -> None:
        with pytest.raises(CannotLook, match=r"cannot be asked \(Network is unreachable\): give the address by --endpoint"):
            look()

    def test_no_interface_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise RuntimeError("No interfaces to listen on, check that any interfaces have IP version IPVersion.V4Only")

        monkeypatch.setattr(zeroconf, "Zeroconf", fail)
        with pytest.raises(CannotLook, match=r"cannot be asked \(this machine has no network\)"):
            look()

    def test_a_branch_goes_on(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(multicast, "LOOK_AGAIN_S", 0.01)
        search = Search("lan")

        def warnings() -> list[str]:
            return [one.getMessage() for one in caplog.records if one.name == "zbank"]

        wait_until(lambda: search.places() == () and bool(warnings()))
        for _ in range(5):
            assert search.places() == ()
            time.sleep(0.05)
        assert search._thread is not None
        search._thread.join(LIMIT_S)
        assert len(warnings()) == 1
        assert warnings()[0].startswith("cannot look for the coordinator of cluster 'lan': the local network cannot be asked")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_an_address_of_this_machine_alone_is_not_announced(host: str, caplog: pytest.LogCaptureFixture) -> None:
    announcer = Announcer(Announcement("lan", host, 9000))
    wait_until(lambda: "is no address that others reach: give one by --advertise" in caplog.text)
    announcer.close()


def test_without_the_package_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    caplog.set_level(logging.INFO, "zbank")
    with pytest.raises(PackageMissing, match=r"pip install 'zbank\[discovery\]'"):
        look()
    announcer = Announcer(Announcement("lan", "10.0.0.1", 9000))
    wait_until(lambda: "not announced: " in caplog.text)
    announcer.close()
    assert "pip install 'zbank[discovery]'" in caplog.text
