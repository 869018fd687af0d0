"""Texts that are meant as something else: SQL, HTML, paths, control characters, lines of a log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import apsw
import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.attack.intruder import Intruder, watching_money
from tests.unit.protocol_support import id_of
from zbank.domain.legs import Leg
from zbank.errors import InvalidInput, RemoteFault
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    PROTOCOL_VERSION,
    BranchInfo,
    Cancel,
    ChangeAccount,
    Fault,
    GetAccount,
    GetEntries,
    Hello,
    ListAccounts,
    ListTransfers,
    OpenAccount,
    Register,
    Transfer,
)

SQL = (
    "'; DROP TABLE accounts; --",
    '" OR "1"="1',
    "x') UNION SELECT * FROM actor --",
    "%' OR number LIKE '%",
    "100%_[a-z]*?\\",
    "Robert'); UPDATE accounts SET balance=9e9;--",
    "x\"; ATTACH DATABASE '/tmp/own.db' AS own; --",
)
HTML = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "{{7*7}}", "&lt;b&gt;")
CONTROL = ("\x1b[2J\x1b[31mred", "line\nERROR: the bank is empty", "\r\nSet-Cookie: a=b", "\x00end", "\u202edesrever", "\x07")


@pytest.mark.parametrize("text", [*SQL, *HTML])
def test_a_name_a_memo_and_a_search_are_text_and_nothing_else(bank: Cluster, text: str) -> None:
    with bank.client() as client:
        opened = client.open_account("Mumbai", owner=text)
        assert client.account(opened.account).owner == text
        paid = client.transfer("Mumbai/1001", opened.account, "1.00", memo=text)
        assert paid.status == "committed"
        crossed = client.transfer("Delhi/1001", opened.account, "1.00", memo=text)
        assert crossed.status == "committed"
        wait_until(lambda: len(client.statement(opened.account).entries) > 1, what="the line of what was decided")
        assert [entry.memo for entry in client.statement(opened.account).entries] == [text, text]
        assert opened.account in [account.account for account in client.accounts("Mumbai", search=text)]
        nothing = [account.account for account in client.accounts("Mumbai", search=text + "nobody")]
        assert nothing == []
    with apsw.Connection(str(bank.data / "Mumbai.db"), flags=apsw.SQLITE_OPEN_READONLY) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"journal", "accounts", "entries"} <= tables


def test_sql_in_every_other_text_is_refused_or_finds_nothing(bank: Cluster) -> None:
    """Numbers, branches, cursors, statuses, currencies: what they may be is narrower than any SQL."""
    with watching_money(bank, and_rows=False), Intruder(bank, "Mumbai", "operator") as operator:
        operator.greeted()
        for text in SQL:
            short = text[:30]
            for message in (
                GetAccount(short),
                GetEntries(short, True, "", 5),
                GetEntries("1001", True, text, 5),
                ListAccounts("", 5, "", text[:6]),
                ListTransfers(short, "", False, 0, 9, "", 5),
                ListTransfers("", text[:10], False, 0, 9, "", 5),
                ListTransfers("", "", False, 0, 9, text, 5),
                OpenAccount(id_of(1), short, "", "", 0),
                OpenAccount(id_of(1), "", "", text[:3], 0),
                ChangeAccount(id_of(1), "1001", text[:10], -1),
                Transfer(id_of(1), (Leg("Mumbai", short, -5), Leg("Mumbai", "1001", 5)), "INR"),
                Transfer(id_of(1), (Leg(short, "1001", -5), Leg("Mumbai", "1001", 5)), "INR"),
                Transfer(id_of(1), (Leg("Mumbai", "1001", -5), Leg("Mumbai", "1002", 5)), text[:3]),
                Transfer(id_of(1), (Leg("Mumbai", "1001", -5), Leg("Mumbai", "1002", 5)), "INR", "", text[:10]),
                Cancel(id_of(1), text[:64]),
            ):
                answer = operator.ask(message)
                assert isinstance(answer, Fault) or not getattr(answer, "accounts", getattr(answer, "transfers", ())), message


PATHS = ("../../etc/passwd", "a/b", "..", "CON/1", "Mumbai/../Delhi", "%2e%2e", "~root", "$(id)")


@pytest.mark.parametrize("name", PATHS)
def test_no_name_becomes_a_path(bank: Cluster, name: str, tmp_path: Path) -> None:
    before = set(bank.folder.rglob("*"))
    for command in (
        ("open", name),
        ("balance", name),
        ("accounts", name),
        ("keys", "add", name, "--role", "teller"),
        ("keys", "rotate", name),
        ("keys", "revoke", name),
    ):
        assert bank.cli(*command).returncode in (1, 2), command
    assert bank.cli("branch", "--name", name, "--data", str(tmp_path)).returncode == 2
    assert set(bank.folder.rglob("*")) == before
    with bank.client() as client:
        for ask in (client.open_account, client.accounts_page):
            with pytest.raises((InvalidInput, RemoteFault)):
                ask(name)


def test_what_others_wrote_begins_no_line_of_a_log(tmp_path: Path) -> None:
    """Without keys anybody on the machine may call itself what it likes, and be refused by that name."""
    for form in ("text", "json"):
        (tmp_path / form).mkdir()
        cluster = Cluster(tmp_path / form)
        cluster.flags["coordinator"] = ("--log", form, "--log-level", "debug")
        try:
            cluster.start_all()
            for text in CONTROL:
                with Intruder(cluster, "coordinator") as intruder:
                    intruder.greet(BRANCH, text)
                    intruder.ask(Register(BranchInfo("Pune", "tcp://127.0.0.1:1", "INR", id_of(5), 1, True), 0, 0))
                    intruder.ask(Hello(PROTOCOL_VERSION, text, CLIENT, text))
            assert cluster.stop("coordinator") == 0
            said = cluster.output("coordinator")
        finally:
            cluster.close()
        assert "cannot register as Pune" in said
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", said)
        lines = said.splitlines()
        assert not [line for line in lines if line.startswith(("ERROR: the bank", "Set-Cookie"))]
        if form == "json":
            for line in lines:
                assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
        else:
            assert all(re.match(r"(DEBUG|INFO|WARNING|ERROR): ", line) for line in lines), lines


def test_a_terminal_is_not_steered_by_what_others_wrote(bank: Cluster) -> None:
    with bank.client() as client:
        account = client.open_account("Mumbai", owner="\x1b[2J\x1b]0;own\x07\nnext").account
        client.transfer("Mumbai/1001", account, "1.00", memo="\x1b[31mred\r\nnext")
    for command in (("accounts", "Mumbai"), ("statement", account), ("balance", account)):
        shown = bank.cli(*command).stdout
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown)
