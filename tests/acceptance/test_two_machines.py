"""Two laptops and a cable: what docs/several-machines.md and the README say to type, typed; then the cable is pulled."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import ROOT, wait_until
from tests.acceptance.two_machines import Cable, Machine, residents, two_machines
from tests.acceptance.typed import PLACES, Typed, under
from zbank.apps.chaos.cluster import verify_file

GUIDE = ROOT / "docs" / "several-machines.md"
README = ROOT / "README.md"
CLONE = "zbank/"  #: what the guide calls the folder of a machine, seen from another one
START_LIMIT_S = 30.0
HEAL_LIMIT_S = 30.0
SOME = 200  #: outcomes of a load
A_FEW = 5  #: outcomes of a load, most of whose customers wait for a machine that is cut off
CURL_NO_CONNECTION, CURL_TIME_OVER = 7, 28  #: exit codes
ANSWER_LIMIT_S = 20  #: of REST, at the most: it waits for the bank for 10 s


class Lan:
    """Both machines, with what a person does there."""

    def __init__(self, a: Machine, b: Machine, cable: Cable) -> None:
        self.a, self.b, self.cable = a, b, cable
        self.machines = {"A": a, "B": b}
        self.printed: dict[str, str] = {}  #: by command: its last output
        self.token = ""
        self.paid: dict[str, list[tuple[str, int]]] = {}  #: legs of what was told committed, by id
        for machine in self.machines.values():  # `git clone` brings it
            shutil.copytree(ROOT / "config", machine.folder / "config", ignore=shutil.ignore_patterns("keys"))

    def own(self, text: str) -> str:
        """The page's text with the addresses of these machines."""
        for place, name in PLACES.items():
            text = text.replace(place, self.machines[name].address)
        return text

    def follow(self, lines: list[Typed]) -> None:
        """Type them, one after the other."""
        for words, machines in lines:
            for name in machines:
                self._type(self.machines[name], [self.own(word) for word in words])

    def _type(self, machine: Machine, words: list[str]) -> None:
        if words[0] == "export":
            machine.exports |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "ssh":
            assert words[1] == self.b.address
            self.b.done(*(word.removeprefix(CLONE) for word in words[2:]))
        elif words[0] == "scp":
            to, _, place = words[-1].partition(f":{CLONE}")
            assert to == self.b.address
            machine.done("cp", *words[1:-1], str(self.b.folder / place))
        elif words[0] == "rm":
            machine.done(*words)
        elif words[1] in ("coordinator", "branch", "replica", "rest", "dashboard"):
            self._start(machine, words)
        else:
            self.printed[words[1]] = machine.done(*words)
        if words[:2] == ["zbank", "tokens"]:
            self.token = re.findall(r"zbank_\S+", self.printed["tokens"])[0]
        if words[:2] == ["zbank", "transfer"]:
            id = re.findall(r" id (\S+)", self.printed["transfer"])[0]
            self.paid[id] = [(words[2], -int(words[4])), (words[3], int(words[4]))]

    def _start(self, machine: Machine, words: list[str]) -> None:
        name = words[words.index("--name") + 1] if "--name" in words else words[1]
        machine.start(name, *words)
        ready = {"coordinator": " serves at ", "rest": "REST serves at http://"}
        if words[1] == "dashboard":
            wait_until(lambda: self._is_healthy(machine), START_LIMIT_S, "health of the dashboard")
        else:
            said = ready.get(words[1], f"registered with the coordinator at tcp://{self.a.address}:9000")
            wait_until(lambda: machine.says(name, said), START_LIMIT_S, f"{name} says: {said}")
        if words[1] == "replica":
            status = ("zbank", "status", "--config", "config/branch.toml")
            level = re.compile(rf"^{name} .* [0-9.]+s$", re.M)
            wait_until(lambda: level.search(machine.run(*status).stdout) is not None, START_LIMIT_S, name)

    def _is_healthy(self, machine: Machine) -> bool:
        assert machine.started["dashboard"].poll() is None, machine.output("dashboard")
        return machine.run("curl", "-s", "http://localhost:8501/_stcore/health").stdout == "ok"

    def ask(self, machine: Machine, path: str, body: Any = None, *, key: str = "", token: str | None = None) -> tuple[int, Any]:
        """Ask the bridge on A from a machine; status and JSON."""
        words = ["curl", "-s", "-m", str(ANSWER_LIMIT_S), "-w", "\n%{http_code}", f"http://{self.a.address}:5000{path}"]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "-H", f"Idempotency-Key: {key}", "-d", json.dumps(body)]
        if token != "":
            words += ["-H", f"Authorization: Bearer {token or self.token}"]
        text, _, status = machine.run(*words).stdout.rpartition("\n")
        return int(status), json.loads(text) if text else None

    def pays(self, machine: Machine, source: str, to: str, key: str) -> int:
        """One unit by the bridge, noted when it was committed; the status."""
        status, told = self.ask(machine, "/v1/transfers", {"from": source, "to": to, "amount": "1"}, key=key)
        if status == 201:
            self.paid[told["id"]] = [(source, -1), (to, 1)]
        return status

    def stop(self) -> None:
        """Everything ends as it should."""
        for machine in self.machines.values():
            for name in machine.started:
                assert machine.stop(name) in (0, -15 if name == "dashboard" else 0), machine.output(name)
                assert "Traceback" not in machine.output(name), machine.output(name)


class Money:
    """A stream of transfers, sent from B."""

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        program = [sys.executable, "-m", "tests.acceptance.two_machines_load", f"tcp://{lan.a.address}:9000", "Mumbai", "Delhi"]
        self._process = lan.b.start("load", *program, talks=True)

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._lan.b.output("load")
        return json.loads(answer)

    def flows(self, what: str = "across", count: int = SOME) -> None:
        """Wait until so many more were told."""
        before = self._ask("told")
        wait_until(lambda: self._ask("told")[what] >= before[what] + count, HEAL_LIMIT_S, f"{count} more than {before}")

    def judge(self) -> Any:
        """Stop it; what its customers know, and what is wrong."""
        answer = self._ask(f"judge {json.dumps(self._lan.paid)}")
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._lan.b.drop("load")
        return answer


# --- the machines themselves ------------------------------------------------------------------------------------------


def test_nothing_is_left_of_two_machines_when_a_test_fails(tmp_path: Path) -> None:
    seen: list[str] = []

    def fail() -> None:
        with two_machines(tmp_path) as (a, b, _):
            seen.extend((a.network, b.network))
            a.start("parent", "sh", "-c", "sleep 600 & echo started; wait")
            wait_until(lambda: a.says("parent", "started"))
            assert len(residents(a.network)) == 3, "parent, child and what holds the network"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(set(seen)) == 2
    wait_until(lambda: not any(residents(network) for network in seen), what="the end of all that ran there")


def test_a_cable_is_all_that_joins_them(tmp_path: Path) -> None:
    with two_machines(tmp_path) as (a, b, cable), socket.create_server(("127.0.0.1", 0)) as here:
        a.start("door", sys.executable, "-m", "http.server", "8000")

        def reach(address: str, limit_s: int = 20) -> int:
            return b.run("curl", "-s", "-m", str(limit_s), "-o", "/dev/null", f"http://{address}").returncode

        wait_until(lambda: reach(f"{a.address}:8000", 5) == 0, what="B reaches A")
        assert reach(f"127.0.0.1:{here.getsockname()[1]}") == CURL_NO_CONNECTION, "not what the tests are on"
        assert reach("192.0.2.1:80") == CURL_NO_CONNECTION, "nor the world"
        cable.pull()
        assert reach(f"{a.address}:8000", 1) in (CURL_NO_CONNECTION, CURL_TIME_OVER)
        cable.put_back()
        wait_until(lambda: reach(f"{a.address}:8000", 5) == 0, what="B reaches A again")


# --- by one config file -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """The guide was followed to its end."""
    with two_machines(tmp_path_factory.mktemp("lan")) as machines:
        lan = Lan(*machines)
        config = lan.a.folder / "config" / "branch.toml"
        config.write_text(lan.own(config.read_text("utf-8")), "utf-8")
        lan.follow(under(GUIDE, "# Several machines, step by step"))
        wait_until(lambda: lan.ask(lan.b, "/v1/me")[0] == 200, what="the bridge knows the token")
        yield lan


def test_each_machine_has_its_own_secrets_alone(lan: Lan) -> None:
    here = {name: sorted(path.name for path in machine.folder.rglob("*.secret")) for name, machine in lan.machines.items()}
    assert here == {
        "A": ["Mumbai.secret", "coordinator.secret", "rest.secret"],
        "B": ["Delhi.secret", "Mumbai-backup.secret", "operator.secret"],
    }
    assert {path.stat().st_mode & 0o777 for path in lan.b.folder.rglob("*.secret")} == {0o600}


def test_every_part_is_up_and_found_where_the_file_says(lan: Lan) -> None:
    assert lan.printed["transfer"].startswith("committed: 50 from Mumbai/1001 to Delhi/1002")
    for name, place in (("coordinator", "192.168.1.10:9000"), ("Mumbai", "192.168.1.11:9100"), ("Delhi", "192.168.1.12:9100")):
        assert re.search(rf"{name} +tcp://{lan.own(place)} +up ", lan.printed["status"]), lan.printed["status"]


def test_the_short_walk_of_the_readme_is_part_of_the_guide() -> None:
    told = {line.words for line in under(GUIDE, "# Several machines, step by step")}
    short = [line.words for line in under(README, "## Several machines") if "--config" in line.words]
    assert len(short) == 4
    assert set(short) <= told


def test_the_bridge_on_one_is_used_from_the_other(lan: Lan) -> None:
    assert lan.ask(lan.b, "/readyz", token="")[0] == 200
    assert lan.pays(lan.b, "Delhi/1001", "Mumbai/1002", "across-1") == 201

    def is_there() -> bool:
        status, account = lan.ask(lan.b, "/v1/branches/Mumbai/accounts/1002")
        return (status, account["balance"]) == (200, "5001.00")

    wait_until(is_there, what="Mumbai has applied it")

    def refused(path: str, token: str, body: Any = None) -> int:
        """A bridge that has no answer of the coordinator's for a while says so (503), and lets nobody in either."""
        while (status := lan.ask(lan.b, path, body, key="stolen", token=token)[0]) == 503:
            pass
        return status

    for token in ("", "zbank_" + "0" * 43):
        assert refused("/v1/branches", token) == 401
        assert refused("/v1/transfers", token, {"from": "Mumbai/1001", "to": "Delhi/1001", "amount": "1"}) == 401


def test_the_dashboard_on_one_shows_the_bank_of_the_other(lan: Lan) -> None:
    """It asks for a token: so it has reached the bridge, which demands one."""
    page = (sys.executable, "-m", "tests.acceptance.dashboard_page", "http://localhost:8501")

    def asks_for_a_token() -> bool:
        told = lan.b.run(*page, "wants to know who you are", "No bank to show")  # the latter of a bridge that is slow to answer
        assert told.returncode == 0, told.stderr
        return "wants to know who you are" in told.stdout

    wait_until(asks_for_a_token, what="a dashboard that has reached the bridge")


def strangers(lan: Lan) -> dict[str, dict[str, str]]:
    """Environments of two people on B whom nobody let in: one has no keys; the other has the list, and has added herself."""
    folder = lan.b.folder / "stranger"
    folder.mkdir()
    shutil.copy(lan.b.folder / "config" / "keys" / "keys.toml", folder)
    for name, role in (("mallory", "operator"), ("Pune", "branch")):
        lan.b.done("zbank", "keys", "add", name, "--role", role, "--keys", str(folder))
    return {"no keys": {"ZBANK_KEYS": ""}, "a key that is not listed": {"ZBANK_KEYS": str(folder)}}


def test_without_a_listed_key_nobody_gets_in_anywhere(lan: Lan) -> None:
    places = [f"tcp://{lan.a.address}:9000", f"tcp://{lan.a.address}:9100", f"tcp://{lan.b.address}:9100"]
    who = strangers(lan)
    lan.b.exports |= who["a key that is not listed"]
    lan.b.start("Pune", "zbank", "branch", "--name", "Pune", "--cluster", "lan", "--port", "9300", "--coordinator", places[0])
    lan.b.exports.clear()
    attempts = [(what, place) for what in who for place in places]

    def attempt(case: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        what, place = case
        return lan.b.run("zbank", "status", "--endpoint", place, "--timeout", "2", env=who[what])

    with ThreadPoolExecutor(3) as pool:
        for case, done in zip(attempts, pool.map(attempt, attempts), strict=True):
            assert (done.returncode, done.stdout) == (1, ""), (case, done)
            assert "no answer from" in done.stderr, (case, done)
    wait_until(lambda: lan.b.says("Pune", "no answer from"), what="the stranger's branch is told nothing")
    for machine, name in ((lan.a, "coordinator"), (lan.a, "Mumbai"), (lan.b, "Delhi")):
        wait_until(lambda on=machine, name=name: on.says(name, "was turned away"), what=f"{name} says who tried")  # type: ignore[misc]
    assert "Pune" not in lan.b.done("zbank", "status", "--config", "config/branch.toml")
    lan.b.drop("Pune")


def pull_in_the_middle(lan: Lan, money: Money) -> None:
    """Pull the cable while Delhi has voted, and does not know what was decided."""
    for _ in range(5):
        money.flows()
        lan.cable.pull()
        at_delhi = lan.b.run("zbank", "status", "--endpoint", f"tcp://{lan.b.address}:9100", "--json", "--timeout", "5")
        if in_flight(at_delhi.stdout):
            return
        lan.cable.put_back()
    pytest.fail("no transfer was ever caught half way")


def in_flight(status: str) -> int:
    """Of Delhi, in `zbank status --json`; 0 while it does not answer."""
    actors = json.loads(status)["actors"] if status else []
    return next((int(one.get("in_flight", 0)) for one in actors if one["name"] == "Delhi"), 0)


def test_the_cable_is_pulled_while_money_moves_and_put_back(lan: Lan) -> None:
    by_key = ("--config", "config/branch.toml")
    lan.b.exports["ZBANK_KEYS"] = "config/keys"
    money = Money(lan)
    pull_in_the_middle(lan, money)

    assert lan.pays(lan.a, "Mumbai/1001", "Mumbai/1002", "at-mumbai") == 201, "A works by itself"
    own = ("--endpoint", f"tcp://{lan.b.address}:9100", "--json")
    done = json.loads(lan.b.done("zbank", "transfer", "Delhi/1001", "Delhi/1002", "1", *own))
    lan.paid[done["id"]] = [("Delhi/1001", -1), ("Delhi/1002", 1)]
    money.flows("told", count=A_FEW)
    assert lan.pays(lan.a, "Mumbai/1001", "Delhi/1001", "across-2") in (202, 503), "nobody guesses"
    lost = lan.b.run("zbank", "transfer", "Delhi/1001", "Mumbai/1001", "1", "--id", "across-3", *by_key, "--timeout", "2")
    assert lost.returncode in (1, 3), lost
    assert f"tcp://{lan.a.address}:9000" in lost.stderr

    lan.cable.put_back()
    money.flows()
    assert lan.pays(lan.a, "Mumbai/1001", "Delhi/1001", "across-2") == 201, "the same once more, and it is done"
    again = json.loads(lan.b.done("zbank", "transfer", "Delhi/1001", "Mumbai/1001", "1", "--id", "across-3", *by_key, "--json"))
    lan.paid[again["id"]] = [("Delhi/1001", -1), ("Mumbai/1001", 1)]
    known = money.judge()
    assert known["findings"] == []
    assert known["faults"], "the customers felt it"
    assert json.loads(lan.b.done("zbank", "in-doubt", "list", *by_key, "--json"))["in_doubt"] == []


def test_all_ends_well_and_the_files_are_whole(lan: Lan) -> None:
    """The last one: it stops the bank."""
    lan.stop()
    for machine, name in ((lan.a, "coordinator"), (lan.a, "Mumbai"), (lan.b, "Delhi")):
        assert verify_file(machine.folder / "data", "lan", name) == []


# --- by flags alone ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Lan]:
    """Two laptops, no router, no file; keys were made on A, and Delhi's and the operator's carried to B."""
    with two_machines(tmp_path) as machines:
        lan = Lan(*machines)
        lan.follow(under(GUIDE, "## Without a file")[:1])
        (lan.b.folder / "keys").mkdir()
        for name in ("keys.toml", "Delhi.secret", "operator.secret"):
            shutil.copy(lan.a.folder / "keys" / name, lan.b.folder / "keys")
        yield lan


def test_by_flags_alone(bare: Lan) -> None:
    bare.follow(under(GUIDE, "## Without a file")[1:])
    for machine, name in ((bare.a, "Mumbai"), (bare.b, "Delhi")):
        said = f"advertises tcp://{machine.address}:9100, this machine's address towards {bare.a.address} (--advertise"
        assert said in machine.output(name)
    money = Money(bare)
    money.flows()
    bare.cable.pull()
    money.flows("told", count=A_FEW)
    bare.cable.put_back()
    money.flows()
    assert bare.pays(bare.b, "Mumbai/1001", "Delhi/1001", "across") == 201
    assert money.judge()["findings"] == []
    bare.stop()
    for machine, name in ((bare.a, "coordinator"), (bare.a, "Mumbai"), (bare.b, "Delhi")):
        assert verify_file(machine.folder / "data" / name, "demo", name) == []


def test_on_one_network_alone(bare: Lan) -> None:
    """As with a VPN: each part listens at its machine's address there, and on no other one."""
    for typed in under(GUIDE, "## Without a file")[1:5]:
        own = bare.machines[typed.machines[0]].address
        bare.follow([Typed(tuple(word.replace("0.0.0.0", own) for word in typed.words), typed.machines)])
    by_cable = ("--endpoint", f"tcp://{bare.a.address}:9000")
    assert "committed" in bare.b.done("zbank", "transfer", "Mumbai/1001", "Delhi/1001", "1", *by_cable)
    for port in ("9000", "9100"):
        for host, reached in ((bare.a.address, True), ("127.0.0.1", False)):
            limit_s = "1" if reached else "20"  # whoever is let in there stays
            done = bare.a.run("curl", "-s", "-m", limit_s, f"telnet://{host}:{port}")
            assert (done.returncode != CURL_NO_CONNECTION) is reached, (host, port, done)
    bare.stop()


def test_the_readme_and_the_guide_type_the_same_flags() -> None:
    guide = under(GUIDE, "## Without a file")
    short = [line for line in under(README, "## Several machines") if "--config" not in line.words]
    assert len(short) == 5
    assert [line for line in short if line not in guide] == []
