"""What an announcement says, what of it is believed, which bank is meant, and when a command looks for one at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.apps import keymaking
from zbank.apps.cli import finding
from zbank.errors import InvalidConfig, InvalidInput
from zbank.protocol.messages import PROTOCOL_VERSION
from zbank.transport import multicast
from zbank.transport.discovery import (
    MAX_LABEL_BYTES,
    MAX_PLACES,
    SERVICE,
    CannotLook,
    Found,
    NotFound,
    PackageMissing,
    SeveralFound,
    choose,
    host_name,
    instance_name,
    next_place,
    read,
    texts,
    usable,
)

LAN = Found("lan", "tcp://10.0.0.1:9000", PROTOCOL_VERSION)
DEMO = Found("demo", "tcp://10.0.0.2:9000", PROTOCOL_VERSION)
OTHER_LAN = Found("lan", "tcp://10.0.0.3:9000", PROTOCOL_VERSION)
SAID = {key.encode(): value.encode() for key, value in texts("lan").items()}


class TestWhatIsSaid:
    def test_nothing_but_name_protocol_and_role(self) -> None:
        assert texts("lan") == {"cluster": "lan", "protocol": str(PROTOCOL_VERSION), "role": "coordinator"}

    def test_a_name_that_does_not_fit(self) -> None:
        with pytest.raises(InvalidInput, match="too long"):
            texts("\N{BANK}" * 64)

    @pytest.mark.parametrize(
        ("cluster", "shown"),
        [("demo", "demo"), ("Ünion Bank", "Ünion Bank"), ("a.b\\c\n", "a-b-c-"), (" ", "zbank"), ("ü" * 40, "ü" * 31)],
    )
    def test_instance_name(self, cluster: str, shown: str) -> None:
        assert instance_name(cluster) == shown

    @given(st.text(min_size=1, max_size=64))
    def test_any_name_gives_one_that_dns_can_have(self, cluster: str) -> None:
        name = instance_name(cluster)
        assert 1 <= len(name.encode()) <= MAX_LABEL_BYTES
        assert "." not in name
        assert name.isprintable()

    def test_the_package_takes_such_a_name(self) -> None:
        zeroconf = pytest.importorskip("zeroconf")
        for cluster in ("demo", "a.b", "Ünion \t Bank", "x" * 64):
            zeroconf.ServiceInfo(SERVICE, f"{instance_name(cluster)}.{SERVICE}", port=1, properties=texts(cluster))

    @pytest.mark.parametrize(
        ("address", "name"),
        [("10.0.0.1", "zbank-10-0-0-1-9000.local."), ("fd00::2", "zbank-fd00--2-9000.local.")],
    )
    def test_host_name(self, address: str, name: str) -> None:
        assert host_name(address, 9000) == name


class TestWhatIsBelieved:
    def test_one_of_ours(self) -> None:
        assert read(SAID, ["10.0.0.1"], 9000) == LAN
        assert read(SAID, ["fd00::2"], 9000) == Found("lan", "tcp://[fd00::2]:9000", PROTOCOL_VERSION)

    def test_another_version_is_listed_as_such(self) -> None:
        found = read({**SAID, b"protocol": b"99"}, ["10.0.0.1"], 9000)
        assert found is not None
        assert found.version == 99

    @pytest.mark.parametrize(
        "change",
        [
            {b"cluster": None},
            {b"cluster": b""},
            {b"cluster": b"\xff"},
            {b"cluster": b"x" * 65},
            {b"cluster": b"a\x1b[2Jb"},
            {b"cluster": b"two\nlines"},
            {b"role": b"branch"},
            {b"role": None},
            {b"protocol": b""},
            {b"protocol": b"-1"},
            {b"protocol": "²".encode()},
            {b"protocol": b"9" * 5000},
        ],
        ids=str,
    )
    def test_what_others_say_may_be_anything(self, change: dict[bytes, bytes | None]) -> None:
        assert read({**SAID, **change}, ["10.0.0.1"], 9000) is None

    @pytest.mark.parametrize("port", [None, 0, 65_536, -1])
    def test_no_port(self, port: int | None) -> None:
        assert read(SAID, ["10.0.0.1"], port) is None

    @pytest.mark.parametrize(
        "addresses", [[], ["127.0.0.1"], ["::1"], ["0.0.0.0"], ["224.0.0.251"], ["fe80::1"], ["fe80::1%eth0"], ["x"]]
    )
    def test_an_address_that_leads_nowhere_or_to_this_machine(self, addresses: list[str]) -> None:
        assert read(SAID, addresses, 9000) is None

    def test_ipv4_comes_first(self) -> None:
        assert usable(["fd00::2", "10.0.0.2", "127.0.0.1", "10.0.0.1", "10.0.0.2"]) == ["10.0.0.1", "10.0.0.2", "fd00::2"]

    @given(st.dictionaries(st.binary(max_size=20), st.none() | st.binary()), st.lists(st.text()), st.integers() | st.none())
    def test_nothing_raises(self, said: dict[bytes, bytes | None], addresses: list[str], port: int | None) -> None:
        read({**said, b"role": b"coordinator"}, addresses, port)


class TestWhichIsMeant:
    def test_the_only_one_of_its_name(self) -> None:
        assert choose([DEMO, LAN, LAN], "lan") == LAN

    def test_none(self) -> None:
        with pytest.raises(NotFound, match=r"cluster 'x' announces itself on this network\. Start it"):
            choose([], "x")
        with pytest.raises(NotFound, match=r"others are there: 'demo' at tcp://10\.0\.0\.2:9000, 'lan' at"):
            choose([DEMO, LAN], "x")

    def test_several_are_listed(self) -> None:
        with pytest.raises(SeveralFound, match=r"'lan' at tcp://10\.0\.0\.1:9000, 'lan' at tcp://10\.0\.0\.3:9000\. Say which"):
            choose([DEMO, LAN, OTHER_LAN], "lan")

    def test_a_flood_is_cut(self) -> None:
        many = [Found(f"c{n}", "tcp://10.0.0.9:1", 4) for n in range(64)]
        with pytest.raises(NotFound, match="and 54 more") as caught:
            choose(many, "lan")
        assert len(str(caught.value)) < 700

    def test_places_are_tried_in_turn(self) -> None:
        announced = ("tcp://b:1", "tcp://c:1", "tcp://a:1")
        at, seen = "tcp://a:1", []
        for _ in range(4):
            at = next_place("tcp://a:1", announced, at)
            seen.append(at)
        assert seen == ["tcp://b:1", "tcp://c:1", "tcp://a:1", "tcp://b:1"]
        assert next_place("tcp://a:1", (), "tcp://a:1") == "tcp://a:1"
        assert next_place("tcp://a:1", ("tcp://d:1",), "tcp://gone:1") == "tcp://a:1"

    def test_a_flood_of_places_does_not_hide_the_one_that_was_told(self) -> None:
        announced = [f"tcp://10.0.0.{n}:1" for n in range(64)]
        at, seen = "tcp://a:1", set()
        for _ in range(MAX_PLACES):
            at = next_place("tcp://a:1", announced, at)
            seen.add(at)
        assert "tcp://a:1" in seen
        assert len(seen) == MAX_PLACES


class Network:
    """A local network that has these announcements, and a memory of how often it was asked."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.error: Exception | None = None
        self.looks = 0
        self.said: list[str] = []

    def look(self, wait_s: float = 0.0, cluster: str = "") -> list[Found]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.found

    def find(self, cluster: str | None, keys: Path | None) -> Found | None:
        return finding.find_coordinator(cluster, keys, self.said.append)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Nothing listens at the usual place of this machine."""
    net = Network()
    monkeypatch.setattr(multicast, "look", net.look)
    with socket.socket() as held:  # bound and not listening: nobody else takes the port meanwhile
        held.bind(("127.0.0.1", 0))
        monkeypatch.setattr(finding, "HERE", held.getsockname())
        yield net


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of cluster `lan`."""
    keymaking.make_all(tmp_path / "keys", "lan", ("Mumbai",))
    return tmp_path / "keys"


class TestWhenItIsLookedFor:
    def test_never_without_keys_and_name(self, network: Network) -> None:
        network.found = [LAN]
        assert network.find(None, None) is None
        assert (network.looks, network.said) == (0, [])

    def test_never_where_something_listens_at_the_usual_place(
        self, network: Network, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network.found = [LAN]
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setattr(finding, "HERE", server.getsockname())
            assert network.find(None, keys) is None
        assert (network.looks, network.said) == (0, [])

    def test_with_keys_the_cluster_of_the_keys(self, network: Network, keys: Path) -> None:
        network.found = [DEMO, LAN]
        assert network.find(None, keys) == LAN
        assert network.said == ["cluster 'lan' is announced at tcp://10.0.0.1:9000"]

    def test_nobody_is_there(self, network: Network, keys: Path) -> None:
        network.found = [DEMO]
        assert network.find(None, keys) is None
        assert "nothing listens at the usual place of this machine, and no coordinator of cluster 'lan'" in network.said[0]

    def test_several_are_never_chosen_from(self, network: Network, keys: Path) -> None:
        network.found = [LAN, OTHER_LAN]
        with pytest.raises(SeveralFound):
            network.find(None, keys)

    @pytest.mark.parametrize("error", [CannotLook("no network"), PackageMissing("pip install 'zbank[discovery]'")])
    def test_what_keeps_from_looking_is_told_and_the_usual_place_is_taken(
        self, network: Network, keys: Path, error: Exception
    ) -> None:
        network.error = error
        assert network.find(None, keys) is None
        assert network.said == [f"nothing listens at the usual place of this machine, and {error}"]

    def test_a_name_that_was_given_has_to_be_there(self, network: Network, keys: Path) -> None:
        with pytest.raises(NotFound):
            network.find("lan", keys)
        with pytest.raises(NotFound):
            network.find("demo", None)

    def test_without_keys_a_name_is_looked_for_and_the_doubt_is_said(self, network: Network) -> None:
        network.found = [LAN]
        assert network.find("lan", None) == LAN
        assert network.said == [
            "cluster 'lan' is announced at tcp://10.0.0.1:9000; without keys nobody proves that it is the one you mean"
        ]

    def test_keys_of_another_cluster(self, network: Network, keys: Path) -> None:
        with pytest.raises(InvalidConfig, match="are of cluster 'lan', not of 'demo'"):
            network.find("demo", keys)
        assert network.looks == 0

    def test_what_serves_waits_and_says_so_once(
        self, network: Network, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def time_passes(_seconds: float) -> None:
            if network.looks == 3:
                network.found = [LAN]

        monkeypatch.setattr(time, "sleep", time_passes)
        assert finding.wait_for_coordinator(None, keys, network.said.append) == LAN
        assert network.looks == 4
        assert [text.split(":")[0] for text in network.said] == [
            "waits for the coordinator",
            "cluster 'lan' is announced at tcp",
        ]

    def test_what_serves_without_keys_or_package_does_not_wait(self, network: Network, keys: Path) -> None:
        assert finding.wait_for_coordinator(None, None, network.said.append) is None
        network.error = PackageMissing("x")
        assert finding.wait_for_coordinator(None, keys, network.said.append) is None
        with pytest.raises(PackageMissing):
            finding.wait_for_coordinator("lan", keys, network.said.append)
