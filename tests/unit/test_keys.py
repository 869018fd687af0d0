"""Keys as files: what is written and read, what is refused, whose key a command uses, and what making and ending them does."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zmq

from zbank.apps import keymaking
from zbank.errors import InvalidConfig, InvalidInput
from zbank.transport.keyfolder import Keys, find_folder, person_of
from zbank.transport.keys import (
    LIST_NAME,
    Key,
    Keyring,
    Pair,
    check_key,
    new_pair,
    read_list,
    read_secret,
    secrets_in,
    write_list,
    write_secret,
)

MADE = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NOW_US = int(MADE.timestamp() * 1_000_000) + 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bank's keys."""
    keymaking.make_all(tmp_path / "keys", "demo", ("Mumbai", "Delhi"))
    return tmp_path / "keys"


def key(name: str = "asha", role: str = "teller", **more: object) -> Key:
    return Key(name=name, role=role, public=new_pair().public, made=MADE, **more)  # type: ignore[arg-type]


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    keys = [
        key("till-4"),
        key("asha", "client", accounts=("Mumbai/1001", "Delhi/7")),
        key("old", until=MADE, revoked=MADE + timedelta(days=1)),
    ]
    write_list(tmp_path, Keyring('a "quoted"\nname', keys))
    found = read_list(tmp_path)
    assert found.cluster == 'a "quoted"\nname'
    assert found.keys == tuple(keys)


def test_every_part_gets_a_key_and_every_secret_is_its_owners_alone(folder: Path) -> None:
    keyring = read_list(folder)
    assert {one.name: one.role for one in keyring.keys} == {
        "coordinator": "coordinator",
        "rest": "bridge",
        "operator": "operator",
        "Mumbai": "branch",
        "Delhi": "branch",
    }
    assert secrets_in(folder) == sorted(one.name for one in keyring.keys)
    for one in keyring.keys:
        assert stat.S_IMODE((folder / f"{one.name}.secret").stat().st_mode) == 0o600
        assert read_secret(folder, one.name).public == one.public
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_secret_is_not_told_by_what_holds_it(folder: Path) -> None:
    pair = read_secret(folder, "Mumbai")
    assert pair.secret not in repr(pair)
    assert pair.secret not in str(Keys(folder, "Mumbai").__dict__)
    assert pair.secret not in (folder / LIST_NAME).read_text()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_secret_that_others_can_read_is_refused(folder: Path, mode: int) -> None:
    (folder / "Mumbai.secret").chmod(mode)
    with pytest.raises(InvalidConfig, match=f"can be read by others .mode {mode:04o}.: chmod 600"):
        Keys(folder, "Mumbai")


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "too short\n", "x" * 39 + "\n", "'" * 40 + "\n", "\x00" * 40, "é" * 40]
)
def test_what_is_no_secret_is_refused_without_telling_it(folder: Path, text: str) -> None:
    (folder / "Mumbai.secret").write_bytes(text.encode())
    with pytest.raises(InvalidConfig) as caught:
        read_secret(folder, "Mumbai")
    assert "Mumbai.secret" in str(caught.value)
    assert not text.strip() or text.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ä", "x" * 65, "a\x00", "con:1", "$HOME", "*"]
)
def test_a_name_is_no_path(folder: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="is no name of a key"):
        keymaking.add(folder, name, "teller", ())
    assert len(list(folder.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("role", "accounts", "says"),
    [
        ("king", (), "is no role of a key"),
        ("client", (), "names the accounts it is for"),
        ("teller", ("Mumbai/1",), "is for all accounts: name none"),
        ("client", ("Mumbai",), "Mumbai"),
        ("client", ("../../etc/passwd",), "is no branch name"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(role: str, accounts: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_key("asha", role, accounts)


@pytest.mark.parametrize(
    "text",
    [
        "not toml [",
        'cluster = ""',
        'cluster = "demo"\nking = 1',
        'cluster = "demo"\n[[key]]\nname = "x"',
        'cluster = "demo"\n[[key]]\nname = "x"\nrole = "king"\npublic = "{0}"\nmade = 2026-01-01T00:00:00Z',
        'cluster = "demo"\n[[key]]\nname = "../x"\nrole = "teller"\npublic = "{0}"\nmade = 2026-01-01T00:00:00Z',
        'cluster = "demo"\n[[key]]\nname = "x"\nrole = "teller"\npublic = "short"\nmade = 2026-01-01T00:00:00Z',
        'cluster = "demo"\n[[key]]\nname = "x"\nrole = "teller"\npublic = "{0}"\nmade = 2026-01-01T00:00:00',
        'cluster = "demo"' + 2 * '\n[[key]]\nname = "x"\nrole = "teller"\npublic = "{0}"\nmade = 2026-01-01T00:00:00Z',
    ],
)
def test_a_list_that_is_damaged_is_refused_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / LIST_NAME).write_text(text.replace("{0}", "0" * 40))
    with pytest.raises(InvalidConfig, match="copy it anew"):
        read_list(tmp_path)


def test_a_key_is_good_until_it_is_revoked_or_its_overlap_is_over() -> None:
    good, rotated, revoked = key(), key(until=MADE), key(until=MADE + timedelta(days=9), revoked=MADE)
    keyring = Keyring("demo", [good, rotated, revoked])
    assert keyring.good(good.public, NOW_US) is good
    assert keyring.good(rotated.public, NOW_US) is None
    assert keyring.good(rotated.public, NOW_US - 2_000_000) is rotated
    assert keyring.good(revoked.public, NOW_US) is None
    assert keyring.good("0" * 40, NOW_US) is None


def test_of_two_server_keys_the_newest_is_tried_first() -> None:
    old, new = key("Mumbai", "branch", until=MADE + timedelta(days=1)), key("Mumbai", "branch")
    keyring = Keyring("demo", [old, key("Delhi", "branch"), new])
    assert keyring.servers("branch", "Mumbai", NOW_US) == [new.public, old.public]
    assert keyring.servers("coordinator", "", NOW_US) == []


def test_a_secret_serves_only_who_it_was_made_for(folder: Path) -> None:
    assert Keys(folder, "Mumbai", role="branch", cluster="demo").role == "branch"
    with pytest.raises(InvalidConfig, match="of cluster 'demo', not of 'prod'"):
        Keys(folder, "Mumbai", cluster="prod")
    with pytest.raises(InvalidConfig, match="listed as that of branch Mumbai"):
        Keys(folder, "Mumbai", role="coordinator")
    write_secret(folder, "Delhi", read_secret(folder, "Mumbai").secret)
    with pytest.raises(InvalidConfig, match=r"the secret of Delhi .* is listed as that of branch Mumbai"):
        Keys(folder, "Delhi", role="branch")
    write_secret(folder, "Delhi", new_pair().secret)
    with pytest.raises(InvalidConfig, match="is not good"):
        Keys(folder, "Delhi", role="branch")
    with pytest.raises(InvalidConfig, match="missing"):
        Keys(folder, "Pune")


def test_changes_are_followed_and_a_damaged_list_changes_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(folder, "Mumbai")
    assert not keys.refresh()
    added = keymaking.add(folder, "till-4", "teller", ())
    assert keys.good(added.public) is None
    assert keys.refresh()
    assert keys.good(added.public) == added
    (folder / LIST_NAME).write_text("[[")
    assert not keys.refresh()
    assert "cannot be read anew" in caplog.text
    assert keys.good(added.public) == added


def test_a_new_secret_is_taken_up_when_its_mode_has_been_put_right(folder: Path) -> None:
    keys = Keys(folder, "Mumbai")
    second = keymaking.rotate(folder, "Mumbai", timedelta(days=7))
    secret = folder / "Mumbai.secret"
    secret.chmod(0o644)
    assert not keys.refresh()
    assert keys.pair.public != second.public
    failed_ns = secret.stat().st_ctime_ns
    while secret.stat().st_ctime_ns == failed_ns:  # files' times go on in steps of some milliseconds
        secret.chmod(0o600)
    assert keys.refresh()
    assert keys.pair.public == second.public


def test_revoking_ends_all_keys_of_a_name_and_removes_the_secret(folder: Path) -> None:
    keymaking.add(folder, "till-4", "teller", ())
    keymaking.rotate(folder, "till-4", timedelta(days=7))
    ended = keymaking.revoke(folder, "till-4")
    assert [one.name for one in ended] == ["till-4", "till-4"]
    assert "till-4" not in secrets_in(folder)
    with pytest.raises(InvalidInput, match="no good key of till-4"):
        keymaking.revoke(folder, "till-4")
    assert keymaking.add(folder, "till-4", "teller", ()).public not in {one.public for one in ended}


def test_rotating_gives_a_second_key_and_the_first_a_while(folder: Path) -> None:
    keys = Keys(folder, "Mumbai")
    first = keys.pair.public
    second = keymaking.rotate(folder, "Mumbai", timedelta(days=7))
    keys.refresh()
    assert keys.pair.public == second.public
    assert keys.servers("branch", "Mumbai") == [[second.public, first]]
    third = keymaking.rotate(folder, "Mumbai", timedelta(0))
    keys.refresh()
    assert keys.servers("branch", "Mumbai") == [[third.public]]


def test_a_name_has_one_key_and_a_folder_one_bank(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="there is a good key of Mumbai already"):
        keymaking.add(folder, "Mumbai", "branch", ())
    with pytest.raises(InvalidInput, match="has keys already"):
        keymaking.make_all(folder, "demo", ("Pune",))
    with pytest.raises(InvalidInput, match="needs another name"):
        keymaking.make_all(folder.parent / "other", "demo", ("rest",))
    assert not (folder.parent / "other" / LIST_NAME).exists()


def test_two_who_change_the_keys_at_once_lose_nothing(folder: Path) -> None:
    names = [f"till-{n}" for n in range(24)]
    threads = [threading.Thread(target=keymaking.add, args=(folder, name, "teller", ())) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.name for one in read_list(folder).keys} >= set(names)


def test_keys_lie_beside_the_config_or_where_the_environment_says(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "cluster.toml"
    assert find_folder(config, {}) == folder
    assert find_folder(None, {}) is None
    assert find_folder(tmp_path / "elsewhere" / "cluster.toml", {}) is None
    assert find_folder(None, {"ZBANK_KEYS": str(folder)}) == folder
    assert find_folder(config, {"ZBANK_KEYS": ""}) == folder
    with pytest.raises(InvalidConfig, match=r"ZBANK_KEYS says .*nowhere, and there is no keys.toml"):
        find_folder(config, {"ZBANK_KEYS": str(tmp_path / "nowhere")})


def test_a_command_uses_the_key_that_can_be_meant(folder: Path) -> None:
    assert person_of(folder, "") == "operator"
    assert person_of(folder, "rest") == "rest"
    (folder / "operator.secret").unlink()
    assert person_of(folder, "") == "rest", "the only one that is no actor's"
    keymaking.add(folder, "till-4", "teller", ())
    with pytest.raises(InvalidConfig, match=r"say whose key to use, by --key NAME or ZBANK_KEY: .* are rest, till-4"):
        person_of(folder, "")


def test_a_pair_is_what_zeromq_takes() -> None:
    pair = new_pair()
    assert isinstance(pair, Pair)
    assert zmq.curve_public(pair.secret.encode()).decode() == pair.public


def test_a_write_that_fails_leaves_the_old_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / LIST_NAME).read_bytes()

    def fails(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        keymaking.add(folder, "till-4", "teller", ())
    assert (folder / LIST_NAME).read_bytes() == before
    assert "till-4" not in secrets_in(folder)
