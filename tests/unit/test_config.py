"""The cluster file: what it gives, and that each way to get it wrong is named with its key and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zbank.config import BranchConfig, data_file, listeners, load_config, parse_endpoint, parse_reachable_endpoint
from zbank.errors import InvalidConfig, InvalidInput

ROOT = Path(__file__).parents[2]

GOOD = """\
[cluster]
name = "test"
data = "somewhere"

[coordinator]
endpoint = "tcp://127.0.0.1:9000"

[branches.Mumbai]
endpoint = "tcp://127.0.0.1:9100"
currency = "INR"
time_zone = "Asia/Kolkata"
preload = true

[branches.Tokyo]
endpoint = "tcp://127.0.0.1:9101"
bind = "tcp://0.0.0.0:9101"
currency = "JPY"

[rest]
port = 5000

[dashboard]
rest_url = "http://192.168.1.50:5000"
"""


def load(folder: Path, text: str) -> str:
    """The error that this text gives."""
    path = folder / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD)
    config = load_config(path)
    assert (config.name, config.data, config.path) == ("test", Path("somewhere"), path)
    assert config.coordinator.bind == "tcp://127.0.0.1:9000"
    assert (config.coordinator.feed_in, config.coordinator.feed_out) == ("tcp://127.0.0.1:9001", "tcp://127.0.0.1:9002")
    assert list(config.branches) == ["Mumbai", "Tokyo"]
    mumbai, tokyo = config.branches.values()
    assert (mumbai.currency, mumbai.time_zone, mumbai.preload, mumbai.bind) == (
        "INR",
        "Asia/Kolkata",
        True,
        "tcp://127.0.0.1:9100",
    )
    assert (tokyo.currency, tokyo.time_zone, tokyo.preload, tokyo.bind) == ("JPY", "UTC", False, "tcp://0.0.0.0:9101")
    assert config.rest is not None
    assert config.rest.port == 5000
    assert config.dashboard is not None
    assert config.dashboard.rest_url == "http://192.168.1.50:5000"
    assert data_file(config.data, "Mumbai") == Path("somewhere/Mumbai.db")
    assert ("branches.Tokyo.bind", "127.0.0.1", 9101) in list(listeners(config))


@pytest.mark.parametrize("name", ["cluster.toml", "branch.toml"])
def test_the_files_of_the_project_are_good(name: str) -> None:
    assert load_config(ROOT / "config" / name).branches["Mumbai"].preload


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_config("c.toml").path == tmp_path / "c.toml"


def test_replicas_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD.replace("preload = true", "replicas = 2"))
    assert load_config(path).replicas == {"Mumbai-replica-1": "Mumbai", "Mumbai-replica-2": "Mumbai"}


def synchronous(tmp_path: Path, keys: str) -> BranchConfig:
    """Mumbai of a file in which it has these keys."""
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD.replace("preload = true", keys))
    return load_config(path).branches["Mumbai"]


def test_the_synchronous_replica_is_the_first_that_is_started_unless_it_is_named(tmp_path: Path) -> None:
    assert synchronous(tmp_path, "replicas = 2").synchronous == ""
    assert synchronous(tmp_path, "replicas = 2\nacks = 0").synchronous == ""
    assert synchronous(tmp_path, "replicas = 2\nacks = 1").synchronous == "Mumbai-replica-1"
    assert synchronous(tmp_path, 'replicas = 2\nacks = 1\nsynchronous = "Mumbai-replica-2"').synchronous == "Mumbai-replica-2"
    assert synchronous(tmp_path, 'acks = 1\nsynchronous = "Mumbai-backup"').synchronous == "Mumbai-backup"


def test_all_whose_names_the_file_knows(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD.replace("preload = true", 'replicas = 1\nacks = 1\nsynchronous = "Mumbai-backup"'))
    config = load_config(path)
    assert config.replicas == {"Mumbai-replica-1": "Mumbai"}
    assert config.named_replicas == {"Mumbai-replica-1": "Mumbai", "Mumbai-backup": "Mumbai"}


def test_two_branches_have_no_replica_in_common(tmp_path: Path) -> None:
    both = 'acks = 1\nsynchronous = "backup"'
    text = GOOD.replace("preload = true", both).replace("[branches.Tokyo]", f"[branches.Tokyo]\n{both}")
    assert load(tmp_path, text) == (
        "branches.Tokyo.synchronous: 'backup' is the name of a replica of Mumbai: write a replica of Tokyo, as in "
        '"Tokyo-backup"'
    )


def test_no_branch_is_called_as_a_replica(tmp_path: Path) -> None:
    text = GOOD.replace("preload = true", "replicas = 2").replace("[branches.Tokyo]", "[branches.mumbai-Replica-2]")
    assert load(tmp_path, text) == "branches.mumbai-Replica-2: the name is that of a replica of Mumbai: choose another one"
    (tmp_path / "cluster.toml").write_text(text.replace("replicas = 2", "replicas = 1"))
    assert "mumbai-Replica-2" in load_config(tmp_path / "cluster.toml").branches


MUMBAI = "endpoint = \"tcp://127.0.0.1:9100\""

WRONG: list[tuple[str, str, str]] = [
    # (what of GOOD is replaced, by what, a pattern that the error matches)
    ('name = "test"', 'name = "test', r"^is not valid TOML: .*line 2"),
    ("[coordinator]", "[coordinater]", r"^coordinater: unknown key; did you mean 'coordinator'\?"),
    ('name = "test"', "", r"^cluster.name: is missing: it is a short text"),
    ('name = "test"', 'name = ""', r'^cluster.name: "" does not fit: it is a short text'),
    ('name = "test"', "name = 5", r"^cluster.name: 5 does not fit: it is a short text"),
    ('data = "somewhere"', "data = []", r"^cluster.data: \[\] does not fit: it is a folder"),
    ('data = "somewhere"', "drills = true", r"^cluster.drills: unknown key; known here: name, data"),
    ("time_zone", "timezone", r"^branches.Mumbai.timezone: unknown key; did you mean 'time_zone'\?"),
    ("preload = true", 'preload = "yes"', r'^branches.Mumbai.preload: "yes" does not fit: it is true or false'),
    ("preload = true", "preload = 1", r"^branches.Mumbai.preload: 1 does not fit: it is true or false"),
    ('"Asia/Kolkata"', '"Asia/Bombay2"', r"^branches.Mumbai.time_zone: 'Asia/Bombay2' is no time zone: .*Asia/Kolkata"),
    ('"Asia/Kolkata"', '"../../etc"', r"^branches.Mumbai.time_zone: .* is no time zone"),
    ('"Asia/Kolkata"', '""', r"^branches.Mumbai.time_zone: '' is no time zone"),
    ('"INR"', '"RUPEE"', r"^branches.Mumbai.currency: 'RUPEE' is no currency: .*INR"),
    ('"INR"', '"XAU"', r"^branches.Mumbai.currency: XAU has no minor units"),
    ('currency = "INR"', "", r"^branches.Mumbai.currency: is missing: it is a currency of ISO 4217"),
    (MUMBAI, "", r"^branches.Mumbai.endpoint: is missing: it is the address that others use"),
    ("tcp://127.0.0.1:9100", "127.0.0.1:9100", r"^branches.Mumbai.endpoint: .* is no address: write tcp://host:port"),
    ("tcp://127.0.0.1:9100", "tcp://127.0.0.1", r"^branches.Mumbai.endpoint: .* is no address"),
    ("tcp://127.0.0.1:9100", "tcp://127.0.0.1:0", r"^branches.Mumbai.endpoint: .* is no address.*1 to 65535"),
    ("tcp://127.0.0.1:9100", "tcp://127.0.0.1:70000", r"^branches.Mumbai.endpoint: .* is no address.*1 to 65535"),
    ("tcp://127.0.0.1:9100", "tcp://0.0.0.0:9100", r"^branches.Mumbai.endpoint: .* is an address to listen on"),
    ("tcp://0.0.0.0:9101", "tcp://0.0.0.0:x", r"^branches.Tokyo.bind: .* is no address"),
    ("tcp://127.0.0.1:9000", "tcp://*:9000", r"^coordinator.endpoint: .* is an address to listen on"),
    ("tcp://127.0.0.1:9000", "tcp://127.0.0.1:65534", r"^coordinator.feed_out: is missing: .*65535"),
    ("tcp://127.0.0.1:9100", "tcp://127.0.0.1:9000", r"^branches.Mumbai.endpoint: port 9000 .* taken by coordinator"),
    ("tcp://127.0.0.1:9100", "tcp://localhost:9101", r"^branches.Tokyo.bind: port 9101 .* taken by branches.Mumbai"),
    ("tcp://127.0.0.1:9100", "tcp://127.0.0.1:9001", r"^coordinator.feed_in: port 9001 .* taken by branches.Mumbai"),
    ("port = 5000", "port = 9100", r"^rest.port: port 9100 .* taken by branches.Mumbai.endpoint"),
    ("port = 5000", "port = true", r"^rest.port: true does not fit: it is a port, 1 to 65535"),
    ("port = 5000", "port = 0", r"^rest.port: 0 does not fit: it is a port"),
    ("port = 5000", "prt = 5000", r"^rest.prt: unknown key; did you mean 'port'\?"),
    ('"http://192', '"192', r"^dashboard.rest_url: .* does not fit: it is an address, as in \"http://"),
    ("preload = true", "replicas = 17", r"^branches.Mumbai.replicas: 17 does not fit: it is a whole number, 0 to 16"),
    ("preload = true", "replicas = -1", r"^branches.Mumbai.replicas: -1 does not fit"),
    ("preload = true", "acks = 2", r"^branches.Mumbai.acks: 2 does not fit: it is 0, or 1: nothing is answered before"),
    ("preload = true", "acks = true", r"^branches.Mumbai.acks: true does not fit: it is 0, or 1"),
    ("preload = true", "acks = 1", r'^branches.Mumbai.acks: needs a replica: write replicas = 1, or synchronous = "NAME"'),
    ("preload = true", 'synchronous = "b"', r"^branches.Mumbai.synchronous: is the replica of acks = 1: write that, too"),
    ("preload = true", 'acks = 1\nsynchronous = "a b"', r'synchronous: "a b" does not fit: it is .* as in "Mumbai-backup"$'),
    ("preload = true", 'acks = 1\nsynchronous = "-b"', r'synchronous: "-b" does not fit: it is the name of a replica'),
    ("preload = true", 'acks = 1\nsynchronous = "tokyo"', r"^branches.Mumbai.synchronous: 'tokyo' is the name of branch Tokyo"),
    ("preload = true", 'acks = 1\nsynchronous = "coordinator"', r"'coordinator' is the name of the coordinator: write a repl"),
    ("preload = true", 'storage = "postgresql://h/d"', r"^branches.Mumbai.storage: PostgreSQL is not in this build"),
    ("preload = true", 'storage = "oracle"', r'^branches.Mumbai.storage: "oracle" is no storage'),
    ("[branches.Tokyo]", "[branches.4th]", r"^branches.4th: '4th' is no branch name"),
    ("[branches.Tokyo]", '[branches."a/b"]', r"^branches.a/b: 'a/b' is no branch name"),
    ("[branches.Tokyo]", "[branches.Coordinator]", r"^branches.Coordinator: the name 'coordinator' is taken"),
    ("[branches.Tokyo]", "[branches.MUMBAI]", r"^branches.MUMBAI: the name 'Mumbai' is taken"),
    ("[branches.Tokyo]", "[[branches.Tokyo]]", r"^branches.Tokyo: \[.* is not a section: write \[branches.Tokyo\]"),
]


@pytest.mark.parametrize(("old", "new", "error"), WRONG, ids=[f"{new or 'no ' + old}" for old, new, _ in WRONG])
def test_a_wrong_file_names_the_key_and_what_would_be_right(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert old in GOOD
    message = load(tmp_path, GOOD.replace(old, new, 1))
    assert re.search(error, message), message


@pytest.mark.parametrize("section", ["cluster", "coordinator"])
def test_a_missing_section(tmp_path: Path, section: str) -> None:
    text = re.sub(rf"\[{section}\]\n(?:\w.*\n)*", "", GOOD)
    assert load(tmp_path, text) == f"the section [{section}] is missing"


def test_no_branches(tmp_path: Path) -> None:
    text = GOOD.partition("[branches.Mumbai]")[0]
    assert "has no branch: write at least one section such as [branches.Mumbai]" in load(tmp_path, text)
    assert "has no branch" in load(tmp_path, text.replace("[cluster]", "branches = 5\n[cluster]"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"nowhere.toml: cannot be read \(No such file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(InvalidConfig, match=r"cannot be read \(Is a directory\)"):
        load_config(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# Zürich".encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"is not UTF-8 text \(byte 3\)"):
        load_config(latin)


def test_the_same_port_on_two_machines_is_no_clash(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD.replace("127.0.0.1:9101", "192.168.1.12:9100").replace("0.0.0.0:9101", "0.0.0.0:9100"))
    assert load_config(path).branches["Tokyo"].bind == "tcp://0.0.0.0:9100"


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:9000", "tcp://*:1", "tcp://[::1]:65535", "tcp://bank.example.org:9000"])
def test_endpoints_round_trip(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize("text", ["", "tcp://", "udp://h:1", "tcp://h:1 ", "tcp://h h:1", "tcp://h:\uff11", "tcp://h:1;x"])
def test_texts_that_are_no_endpoints(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no address: write tcp://host:port"):
        parse_endpoint(text)


def test_an_address_to_listen_on_is_none_to_connect_to() -> None:
    with pytest.raises(InvalidInput, match="to listen on"):
        parse_reachable_endpoint("tcp://0.0.0.0:9000")
