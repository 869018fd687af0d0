"""The commands as a user types them, against a running cluster. Nothing here kills anything."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from zbank.ids import format_id, id_from_key, new_id

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def opened(cluster: Cluster, branch: str = "Mumbai", funds: str = "100.00") -> str:
    """A fresh account with money in it."""
    done = cluster.cli("open", branch, "--owner", "Asha Rao", "--json")
    assert done.returncode == 0, done.stderr
    account = str(json.loads(done.stdout)["account"])
    if funds:
        assert cluster.cli("deposit", account, funds).returncode == 0
    return account


def balance(cluster: Cluster, account: str) -> str:
    return str(answer(cluster, "balance", account)["balance"])


def answer(cluster: Cluster, *arguments: str, code: int = 0) -> Any:
    """The JSON that a command answers."""
    done = cluster.cli(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def refusal(cluster: Cluster, *arguments: str, code: int = 1) -> str:
    """The one line with which a command says no."""
    done = cluster.cli(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def on_terminal(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Exit code and all that a person sees, without colours and moves of the cursor."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    environment = cluster.environment() | {"ZBANK_ENDPOINT": cluster.endpoint, "TERM": "xterm"}
    with subprocess.Popen(cluster.command(*arguments), stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        printed = b""
        with contextlib.suppress(OSError), open(master, "rb", buffering=0) as screen:  # ends with EIO on Linux
            while part := screen.read(4096):
                printed += part
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())


class TestLooking:
    def test_status(self, shared_cluster: Cluster) -> None:
        done = shared_cluster.cli("status")
        assert (done.returncode, done.stderr) == (0, "")
        for name, endpoint in shared_cluster.endpoints.items():
            assert re.search(rf"{name} +{endpoint} +up", done.stdout), done.stdout
        actors = answer(shared_cluster, "status")["actors"]
        assert [actor["role"] for actor in actors] == ["coordinator", "branch", "branch"]
        assert all(actor["total_minor"] == 0 for actor in actors)

    def test_accounts(self, shared_cluster: Cluster) -> None:
        done = shared_cluster.cli("accounts", "Delhi")
        assert done.returncode == 0
        assert re.search(r"^Delhi/1001 .* open +10000\.00 +0\.00 +10000\.00  INR$", done.stdout, re.M), done.stdout
        assert re.search(r"^Delhi/cash .* INR +system$", done.stdout, re.M), done.stdout
        assert "Mumbai/" not in done.stdout
        listed = answer(shared_cluster, "accounts")["accounts"]
        assert {account["branch"] for account in listed} == {"Mumbai", "Delhi"}

    def test_on_a_terminal(self, shared_cluster: Cluster) -> None:
        code, printed = on_terminal(shared_cluster, "accounts", "Delhi")
        assert (code, "───" in printed) == (0, True)
        assert re.search(r"Delhi/cash .* system", printed), printed

    def test_a_reader_that_leaves(self, shared_cluster: Cluster) -> None:
        listing = shared_cluster.spawn("accounts")
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.wait(30) == 1
        assert listing.stderr.read() == ""

    def test_balance(self, shared_cluster: Cluster) -> None:
        assert shared_cluster.cli("balance", "Delhi/1002").stdout == "5000.00 INR\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("balance", "Delhi/nobody"), "failed: account_not_found: "),
            (("balance", "Atlantis/1"), "failed: branch_not_found: "),
            (("accounts", "Atlantis"), "failed: branch_not_found: "),
            (("balance", "1001"), "refused: malformed: '1001' is no account: write Branch/number"),
            (("statement", "Delhi/nobody"), "failed: account_not_found: "),
        ],
    )
    def test_what_is_not_there(self, shared_cluster: Cluster, arguments: tuple[str, ...], said: str) -> None:
        assert refusal(shared_cluster, *arguments).startswith(said)


class TestMoving:
    def test_deposit_and_withdraw(self, shared_cluster: Cluster) -> None:
        account = opened(shared_cluster, funds="")
        done = shared_cluster.cli("deposit", account, "20.50")
        assert re.fullmatch(
            rf"committed: 20\.50 into {account}, id {UUID}\nbalance of {account}: 20\.50 INR\n", done.stdout
        )
        done = shared_cluster.cli("withdraw", account, "0.50")
        assert done.stdout.startswith(f"committed: 0.50 out of {account}, id ")
        assert balance(shared_cluster, account) == "20.00"

    @pytest.mark.parametrize("to", ["Mumbai", "Delhi"])
    def test_transfer_within_and_between(self, shared_cluster: Cluster, to: str) -> None:
        source, destination = opened(shared_cluster), opened(shared_cluster, to, "")
        done = answer(shared_cluster, "transfer", source, destination, "50", "--memo", "rent")
        assert (done["status"], done["from"], done["to"], done["amount"]) == ("committed", source, destination, "50.00")
        assert balance(shared_cluster, source) == balance(shared_cluster, destination) == "50.00"
        shown = shared_cluster.cli("show", done["id"])
        assert shown.returncode == 0
        assert re.search(r"^status +committed$", shown.stdout, re.M), shown.stdout
        found = answer(shared_cluster, "show", done["id"])
        assert {part["branch"] for part in found["participants"]} >= ({to} if to == "Delhi" else set())

    def test_the_same_key_pays_once(self, shared_cluster: Cluster) -> None:
        source, destination = opened(shared_cluster), opened(shared_cluster, "Delhi", "")
        key = f"rent-{source}"
        first = shared_cluster.cli("transfer", source, destination, "30", "--id", key)
        again = shared_cluster.cli("transfer", source, destination, "30", "--id", key)
        assert first.stdout.startswith("committed: 30")
        assert again.stdout.startswith("committed before, nothing moved now: 30")
        assert first.stdout.splitlines()[0].endswith(format_id(id_from_key(key)))
        assert balance(shared_cluster, source) == "70.00"
        assert "idempotency_conflict" in refusal(shared_cluster, "transfer", source, destination, "31", "--id", key)

    def test_refusals_are_one_line(self, shared_cluster: Cluster) -> None:
        source, destination = opened(shared_cluster), opened(shared_cluster, "Delhi", "")
        cases = [
            (destination, "100.01", (), "refused: insufficient_funds: "),
            ("Delhi/nobody", "1", (), "refused: account_not_found: "),
            ("Atlantis/1", "1", (), "failed: branch_not_found: "),
            (source, "1", (), "refused: malformed: "),
            (destination, "0", (), "refused: invalid_amount: "),
            (destination, "-5", (), "refused: malformed: '-5' is no amount"),
            (destination, "1.005", (), "refused: invalid_amount: "),
            (destination, "1e3", (), "refused: invalid_amount: "),
            (destination, "99999999999999999999", (), "refused: invalid_amount: "),
            (destination, "1", ("--currency", "NOK"), "refused: currency_mismatch: "),
            (destination, "1", ("--effective-on", "31.1.2026"), "refused: malformed: "),
            (destination, "1", ("--memo", "x" * 141), "refused: malformed: "),
            (destination, "1", ("--id", ""), "refused: malformed: "),
        ]
        for to, amount, options, said in cases:
            assert refusal(shared_cluster, "transfer", source, to, amount, *options).startswith(said)
        assert balance(shared_cluster, source) == "100.00"

    def test_a_refusal_in_json_is_the_transfer(self, shared_cluster: Cluster) -> None:
        source = opened(shared_cluster)
        done = shared_cluster.cli("transfer", source, "Delhi/1002", "500", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["refusal"]["code"] == "insufficient_funds"
        assert done.stderr.count("\n") == 1

    def test_cancel(self, shared_cluster: Cluster) -> None:
        source = opened(shared_cluster)
        stopped = format_id(new_id())
        assert (
            f"never happens: {stopped}" in shared_cluster.cli("cancel", stopped, "--account", source).stdout
        )
        told = refusal(shared_cluster, "transfer", source, "Delhi/1002", "5", "--id", stopped)
        assert told.startswith("refused: cancelled: ")
        done = answer(shared_cluster, "transfer", source, "Delhi/1002", "5")
        assert "is committed already" in refusal(shared_cluster, "cancel", done["id"])
        assert balance(shared_cluster, source) == "95.00"

    def test_an_id_that_nobody_knows(self, shared_cluster: Cluster) -> None:
        assert refusal(shared_cluster, "show", format_id(new_id()), code=3).startswith("unknown: ")


class TestAccounts:
    def test_statement(self, shared_cluster: Cluster) -> None:
        account = opened(shared_cluster, funds="")
        for amount in ("1", "2", "3"):
            assert shared_cluster.cli("deposit", account, amount, "--memo", f"n{amount}").returncode == 0
        assert shared_cluster.cli("transfer", account, "Delhi/1002", "4").returncode == 0
        page = answer(shared_cluster, "statement", account)
        assert [entry["amount"] for entry in page["entries"]] == ["-4.00", "3.00", "2.00", "1.00"]
        assert [entry["balance"] for entry in page["entries"]] == ["2.00", "6.00", "3.00", "1.00"]
        assert page["cursor"] is None
        part = answer(shared_cluster, "statement", account, "--limit", "3", "--oldest-first")
        assert [entry["memo"] for entry in part["entries"]] == ["n1", "n2", "n3"]
        rest = answer(shared_cluster, "statement", account, "--oldest-first", "--cursor", part["cursor"])
        assert [entry["counterparties"] for entry in rest["entries"]] == [["Delhi/1002"]]
        plain = shared_cluster.cli("statement", account).stdout
        assert re.search(rf"-4\.00 +2\.00 .*Delhi/1002 +{UUID}$", plain, re.M), plain
        assert re.search(r"\+3\.00 +6\.00  n3 +Mumbai/cash", plain), plain

    def test_overdraft(self, shared_cluster: Cluster) -> None:
        account = answer(shared_cluster, "open", "Mumbai", "--overdraft", "50")["account"]
        assert shared_cluster.cli("withdraw", account, "20").returncode == 0
        assert shared_cluster.cli("balance", account).stdout == "-20.00 INR (0.00 held, 30.00 available)\n"
        assert "insufficient_funds" in refusal(shared_cluster, "withdraw", account, "30.01")

    def test_opening_twice(self, shared_cluster: Cluster) -> None:
        assert shared_cluster.cli("open", "Delhi", "7001", "--id", "open-7001").returncode == 0
        assert shared_cluster.cli("open", "Delhi", "7001", "--id", "open-7001").returncode == 0
        assert refusal(shared_cluster, "open", "Delhi", "7001").startswith("refused: account_exists: ")
        assert refusal(shared_cluster, "open", "Delhi", "a b").startswith("refused: malformed: ")

    def test_freeze_unfreeze_close(self, shared_cluster: Cluster) -> None:
        account = opened(shared_cluster)
        assert shared_cluster.cli("freeze", account).stdout == f"{account} is frozen\n"
        assert refusal(shared_cluster, "withdraw", account, "1").startswith("refused: account_frozen: ")
        assert shared_cluster.cli("unfreeze", account).stdout == f"{account} is open\n"
        assert refusal(shared_cluster, "close", account).startswith("refused: account_not_empty: ")
        assert shared_cluster.cli("withdraw", account, "100").returncode == 0
        assert answer(shared_cluster, "close", account)["status"] == "closed"
        assert refusal(shared_cluster, "deposit", account, "1").startswith("refused: account_closed: ")
        assert refusal(shared_cluster, "unfreeze", account).startswith("refused: account_closed: ")


class TestMany:
    def write(self, folder: Path, rows: list[tuple[str, str, str, str]]) -> str:
        file = folder / "pay.csv"
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([("id", "from", "to", "amount"), *rows])
        return str(file)

    def test_running_a_file_again_pays_nothing_twice(self, shared_cluster: Cluster, tmp_path: Path) -> None:
        source, near, far = (
            opened(shared_cluster, funds="500"),
            opened(shared_cluster, funds=""),
            opened(shared_cluster, "Delhi", ""),
        )
        rows = [(f"{source}-{n}", source, (near, far)[n % 2], "1.00") for n in range(300)]
        half = shared_cluster.cli("transfer-many", self.write(tmp_path, rows[:150]))
        assert half.returncode == 0, half.stderr
        assert "150 lines: 150 committed;" in half.stderr
        whole = shared_cluster.cli("transfer-many", self.write(tmp_path, rows))
        assert whole.returncode == 0, whole.stderr
        assert "300 lines: 150 committed, 150 done before;" in whole.stderr
        assert whole.stdout.splitlines()[0] == f"line 2: {source}-0: done before: 1.00 from {source} to {near}"
        assert [balance(shared_cluster, account) for account in (source, near, far)] == ["200.00", "150.00", "150.00"]

    def test_bad_lines_do_not_stop_the_rest(self, shared_cluster: Cluster) -> None:
        source = opened(shared_cluster)
        lines = [
            {"id": f"{source}-a", "from": source, "to": "Delhi/1002", "amount": 10},
            {"id": f"{source}-b", "from": source, "to": "Delhi/1002", "amount": "1.005"},
            {"id": f"{source}-c", "from": source, "to": "Delhi/1002"},
            {"id": f"{source}-d", "from": source, "to": "Delhi/1002", "amount": "1000"},
            {"id": f"{source}-e", "from": source, "to": "Delhi/1002", "amount": 0.5},
        ]
        text = "\n".join(json.dumps(line) for line in lines)
        done = shared_cluster.cli("transfer-many", "-", "--json", stdin=text)
        assert done.returncode == 1
        results = [json.loads(line) for line in done.stdout.splitlines()]
        told = [line["result"] for line in results[:-1]]
        assert told == ["committed", "refused", "refused", "refused", "committed"]
        assert results[0]["transfer"]["amount"] == "10.00"
        assert results[2] == {
            "line": 3,
            "key": f"{source}-c",
            "result": "refused",
            "text": "refused: malformed: lacks amount",
        }
        assert results[-1]["summary"]["committed"] == 2
        assert balance(shared_cluster, source) == "89.50"

    def test_on_a_terminal(self, shared_cluster: Cluster, tmp_path: Path) -> None:
        source = opened(shared_cluster)
        rows = [(f"{source}-{n}", source, "Delhi/1002", amount) for n, amount in enumerate(("1", "x", "2"))]
        code, printed = on_terminal(shared_cluster, "transfer-many", self.write(tmp_path, rows))
        assert code == 1
        assert f"line 2: {source}-0: committed: 1 from {source} to Delhi/1002" in printed
        assert f"line 3: {source}-1: refused: invalid_amount: " in printed
        assert "3/3" in printed  # the bar
        assert "3 lines: 2 committed, 1 refused;" in printed

    def test_a_file_that_cannot_be_used(self, shared_cluster: Cluster) -> None:
        done = shared_cluster.cli("transfer-many", "-", stdin="id,from,amount\n")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("refused: malformed: <stdin>: line 1: the header lacks to")


class TestBench:
    @pytest.mark.parametrize(
        "options",
        [
            ("--work", "local", "--in-flight", "16"),
            ("--work", "transfer", "--in-flight", "32"),
            ("--work", "deposit", "--clients", "4", "--in-flight", "2", "--branches", "Mumbai,Delhi"),
            ("--work", "local", "--in-flight", "1", "--batch", "50"),
        ],
        ids=" ".join,
    )
    def test_it_measures_and_the_books_are_right(self, shared_cluster: Cluster, options: tuple[str, ...]) -> None:
        reports: list[Any] = []

        def is_measured() -> bool:
            """Not when the machine stood still for so long."""
            report = answer(shared_cluster, "bench", "--seconds", "0.5", "--accounts", "8", *options)
            assert report["books"]["ok"], report
            assert set(report["outcomes"]) == {"committed"}
            reports.append(report)
            return bool(report["measured"])

        wait_until(is_measured, what="anything that was measured")
        assert reports[-1]["per_second"] > 0
        times = reports[-1]["latency_ms"]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]

    def test_a_plain_report(self, shared_cluster: Cluster) -> None:
        done = shared_cluster.cli("bench", "--seconds", "0.2", "--accounts", "2")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^throughput  [\d,]+ a second$", done.stdout, re.M), done.stdout
        assert re.search(r"^books +right$", done.stdout, re.M), done.stdout
