"""The shell of the command line: one line for each fault, exit codes, and where the bank is found."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from zbank.apps.cli import main, output
from zbank.apps.cli.output import Column, emit_json_list, show_facts, show_table
from zbank.apps.cli.root import COMMANDS
from zbank.apps.cli.shell import Bank, BankGroup, bank_options, describe_error, printable
from zbank.apps.cli.status import describe_actor, format_duration
from zbank.errors import (
    InvalidAmount,
    InvalidConfig,
    NoAnswer,
    Refused,
    RemoteFault,
    Unreachable,
    ZbankError,
)
from zbank.ids import format_id
from zbank.protocol.messages import StatusInfo
from zbank.transport.views import ActorDown

CLUSTER = """
[cluster]
name = "demo"
[coordinator]
endpoint = "tcp://10.0.0.1:9000"
[branches.Mumbai]
endpoint = "tcp://10.0.0.1:9100"
currency = "INR"
"""
HELP_LIMIT_S = 1.0  # of work; it takes 0.1 s, and on a busy machine as much, however long it waits


def run(*arguments: str, command: click.Command = main, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"ZBANK_ENDPOINT": None, **(env or {})}).invoke(command, list(arguments))


class TestFaults:
    @pytest.mark.parametrize(
        ("error", "line", "code"),
        [
            (Refused("account_exists", "Mumbai/1 is there"), "refused: account_exists: Mumbai/1 is there", 1),
            (InvalidAmount("'x' is no amount"), "refused: invalid_amount: 'x' is no amount", 1),
            (RemoteFault("busy", "try later"), "failed: busy: try later", 1),
            (Unreachable("nobody at tcp://x:1"), "failed: unreachable: nobody at tcp://x:1", 1),
            (NoAnswer("no answer"), "failed: no_answer: no answer", 1),
            (InvalidConfig("F: coordinator: is missing"), "config: F: coordinator: is missing", 2),
            (Unreachable("two\nlines \x1b[2J"), "failed: unreachable: two lines \ufffd[2J", 1),
            (FileNotFoundError(2, "No such file", "x.toml"), "failed: No such file: x.toml", 1),
        ],
    )
    def test_a_fault_is_one_line_and_an_exit_code(self, error: Exception, line: str, code: int) -> None:
        @click.group(cls=BankGroup)
        def group() -> None:
            """A group."""

        @group.command()
        def fail() -> None:
            raise error

        result = run("fail", command=group)
        assert (result.exit_code, result.stdout, result.stderr) == (code, "", line + "\n")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["balance"], "usage: missing argument 'ACCOUNT'"),
            (["balance", "A/1", "--jsn"], "usage: no such option"),
            (["nonsense"], "usage: no such command 'nonsense'"),
            (["balance", "A/1", "--timeout", "nan"], "usage: invalid value for '--timeout': nan is no time"),
            (["balance", "A/1", "--endpoint", "nowhere"], "usage: --endpoint: 'tcp://nowhere' is no address"),
            (["balance", "A/1", "--endpoint", "x:1", "--config", "y"], "usage: give --endpoint or --config, not both"),
            (["balance", "A/1", "--endpoint", "x:1", "--cluster", "y"], "usage: give --cluster or --endpoint, not both"),
            (["balance", "A/1", "--config", "x", "--cluster", "y"], "usage: give --cluster or --config, not both"),
            (["rest", "--endpoint", "x:1", "--cluster", "y"], "usage: give --cluster or --endpoint, not both"),
            (["rest", "--config", "x", "--cluster", "y"], "usage: give --cluster or --config, not both"),
            (["discover", "--wait", "0"], "usage: invalid value for '--wait'"),
            (["bench", "--work", "sleep"], "usage: invalid value for '--work'"),
            (["transfer-many", "no-such-file.csv"], "usage: invalid value for 'FILE'"),
            (["balance", "A/\udcff"], "usage: an argument is not valid text"),
            (["status", "--config", "no-such-file.toml"], "config: "),
        ],
    )
    def test_wrong_usage_is_one_line_and_exit_code_2(self, arguments: list[str], said: str) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.lower().startswith(said.lower())
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""

    @pytest.mark.parametrize("amount", ["-5", "-.5", "-0"])
    def test_a_negative_amount_is_called_that(self, amount: str) -> None:
        result = run("transfer", "A/1", "B/1", amount)
        assert result.exit_code == 1
        assert result.stderr == f"refused: malformed: '{amount}' is no amount here: give a positive one\n"

    def test_every_error_class_has_a_line(self) -> None:
        assert describe_error(ZbankError("x")) == "failed: error: x"


class TestHelp:
    def test_no_arguments_show_the_help(self) -> None:
        result = run()
        assert result.exit_code == 2
        assert "Examples:" in result.stderr

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
    def test_each_command_has_an_example(self, command: click.Command) -> None:
        result = run(str(command.name), "--help")
        assert result.exit_code == 0
        assert f"zbank {command.name} " in result.stdout or f"zbank {command.name}\n" in result.stdout

    def test_it_starts_fast_because_nothing_heavy_is_imported(self) -> None:
        heavy = ("rich", "zmq", "msgspec", "apsw", "iso4217", "asyncio", "zeroconf")
        code = (
            "import sys\nfrom zbank.apps.cli import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
            f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
        )
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < HELP_LIMIT_S


class TestWhereTheBankIs:
    @staticmethod
    def find(*arguments: str, env: dict[str, str] | None = None) -> Bank:
        found: list[Bank] = []

        @click.command()
        @bank_options
        def ask(bank: Bank) -> None:
            found.append(bank)

        result = CliRunner(env={"ZBANK_ENDPOINT": None, **(env or {})}).invoke(ask, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return found[0]

    def test_default(self) -> None:
        assert self.find() == Bank("tcp://127.0.0.1:9000", "", 10.0, "")

    def test_endpoint(self) -> None:
        bank = self.find("--endpoint", "10.0.0.9:9100", "--timeout", "2.5")
        assert bank == Bank("tcp://10.0.0.9:9100", "", 2.5, "--endpoint tcp://10.0.0.9:9100")
        assert bank.suggest("show X") == "zbank show X --endpoint tcp://10.0.0.9:9100"

    def test_environment_and_the_flag_over_it(self) -> None:
        env = {"ZBANK_ENDPOINT": "tcp://10.0.0.8:9000"}
        assert self.find(env=env).endpoint == "tcp://10.0.0.8:9000"
        assert self.find(env=env).suggest("show X") == "zbank show X"
        assert self.find("--endpoint", "tcp://10.0.0.9:9000", env=env).endpoint == "tcp://10.0.0.9:9000"

    def test_config_over_the_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "cluster.toml"
        file.write_text(CLUSTER)
        bank = self.find("--config", str(file), env={"ZBANK_ENDPOINT": "tcp://10.0.0.8:9000"})
        assert (bank.endpoint, bank.cluster) == ("tcp://10.0.0.1:9000", "demo")
        assert bank.suggest("status") == f"zbank status --config {file}"


class TestOutput:
    def test_a_plain_table_is_whole_and_aligned(self, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [("Mumbai/1", "10000.00", "x" * 300), ("Delhi/22", "-5.00", "a\tb\x1b[31m")]
        assert show_table((Column("account"), Column("balance", right=True), Column("memo")), rows) == 2
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "account    balance  memo"
        assert lines[1] == "Mumbai/1  10000.00  " + "x" * 300
        assert lines[2] == "Delhi/22     -5.00  a b\ufffd[31m"

    def test_a_long_table_streams(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert show_table((Column("n", right=True),), ((str(n),) for n in range(5000))) == 5000
        assert len(capsys.readouterr().out.splitlines()) == 5001

    def test_an_empty_table_has_its_header(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert show_table((Column("a"), Column("b")), []) == 0
        assert capsys.readouterr().out == "a  b\n"

    @pytest.mark.parametrize(("width", "pretty"), [(71, True), (70, False), (20, False)])
    def test_a_terminal_gets_rules_where_they_fit_and_never_loses_anything(
        self, width: int, pretty: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(output, "on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "dumb")
        rows = [("2026-01-31 12:00:00", "words " * 30, format_id(bytes(range(16)))[:32])]  # 19 + 2 + 16 + 2 + 32
        show_table((Column("date"), Column("memo", fold=True), Column("id")), rows)
        printed = capsys.readouterr().out
        assert ("───" in printed) is pretty
        assert all(cell in printed for cell in (rows[0][0], rows[0][2]))
        assert printed.count("words") == 30

    @pytest.mark.parametrize("values", [[], [{"a": "ü"}], [1, 2, 3]])
    def test_a_streamed_list_is_one_document(self, values: list[object], capsys: pytest.CaptureFixture[str]) -> None:
        emit_json_list("things", iter(values))
        assert json.loads(capsys.readouterr().out) == {"things": values}

    def test_facts(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_facts([("status", "committed"), ("", "more")])
        assert capsys.readouterr().out == "status  committed\n        more\n"

    def test_printable(self) -> None:
        assert printable("Zoë → 5\n\x07") == "Zoë → 5 \ufffd"

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0.0s"), (59.94, "59.9s"), (65, "1m05s"), (7385, "2h03m"), (273600, "3d04h")]
    )
    def test_duration(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text


class TestStatus:
    def test_an_actor_that_is_up(self) -> None:
        info = StatusInfo(
            "branch", "Mumbai", "demo", bytes(16), 2, 100, 7, 1_500_000, 4, 0, 0, 3, 0, (), 4096, ("x",), "0.1.0"
        )
        plain = describe_actor(info, {"Mumbai": "tcp://a:1"}, "tcp://b:2")
        assert (plain["address"], plain["state"], plain["journal_rows"], plain["uptime_s"]) == (
            "tcp://a:1",
            "up",
            100,
            1.5,
        )
        assert json.dumps(plain)

    def test_an_actor_that_is_down(self) -> None:
        plain = describe_actor(ActorDown("branch", "Delhi", "tcp://a:2", "no answer"), {}, "tcp://b:2")
        assert plain["state"] == "down"
        assert plain["reason"] == "no answer"
