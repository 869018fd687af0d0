"""transfer-many: reading the file, and sending with a bound, in order, whatever comes back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank import Client, TransferResult
from zbank.apps.cli.many import COMMITTED, FAILED, REFUSED, REPLAYED, SILENT_LINES_LIMIT, UNKNOWN, Summary, pay_all
from zbank.apps.cli.many_input import BadLine, Order, read_orders
from zbank.domain.refusal import Refusal
from zbank.errors import InvalidAmount, InvalidInput, RemoteFault, Unreachable
from zbank.ids import format_id, id_from_key, new_id

HEADER = "id,from,to,amount,memo\n"
GOOD = "a,Mumbai/1,Delhi/2,50.00,June\n"


def read(text: str) -> list[Order | BadLine]:
    return list(read_orders(text.splitlines(keepends=True)))


def problems(text: str) -> list[tuple[int, str]]:
    return [(item.line, item.problem) for item in read(text) if isinstance(item, BadLine)]


class TestReading:
    def test_csv(self) -> None:
        [order] = read(HEADER + GOOD)
        assert order == Order(2, "a", id_from_key("a"), "Mumbai/1", "Delhi/2", "50.00", "June", None, None)

    def test_columns_in_any_order_and_case_with_a_byte_order_mark(self) -> None:
        [order] = read("\ufeffTo, Amount,ID,from\nDelhi/2,5,k,Mumbai/1\n")
        assert isinstance(order, Order)
        assert (order.source, order.destination, order.amount, order.key) == ("Mumbai/1", "Delhi/2", "5", "k")

    def test_json_lines(self) -> None:
        [first, second] = read(
            '{"id": "a", "from": "A/1", "to": "B/1", "amount": 0.10}\n\n'
            '{"id": "b", "from": "A/1", "to": "B/1", "amount": "5", "memo": null, "effective_on": "2026-01-31"}\n'
        )
        assert isinstance(first, Order)
        assert first.amount == Decimal("0.10")
        assert isinstance(second, Order)
        assert (second.line, second.effective_on, second.memo) == (3, "2026-01-31", "")

    def test_a_uuid_is_the_id_itself(self) -> None:
        value = new_id()
        [order] = read(HEADER + f"{format_id(value)},A/1,B/1,5,\n")
        assert isinstance(order, Order)
        assert order.id == value

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("a,A/1,B/1\n", "has 3 cells"),
            (",A/1,B/1,5,\n", "lacks id"),
            ("a,A/1,,5,\n", "lacks to"),
            ('a,"A/1,B/1,5,\n', "is no CSV"),
            ("a,A/1,B/1,5,caf\udce9\n", "memo is not valid UTF-8"),
            (f"{'x' * 300},A/1,B/1,5,\n", "a key has 1 to 255"),
        ],
    )
    def test_bad_csv_line(self, line: str, problem: str) -> None:
        [(number, said)] = problems(HEADER + line)
        assert number == 2
        assert problem in said

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{", "is no JSON"),
            ("[1]", "is no JSON object"),
            ("[" * 9000, "is no JSON"),
            ('{"id": "a", "from": "A/1", "to": "B/1", "amount": true}', "amount True is no decimal"),
            ('{"id": "a", "from": "A/1", "to": "B/1", "amount": NaN}', "amount nan is no decimal"),
            ('{"id": 7, "from": "A/1", "to": "B/1", "amount": 5}', "id is no text"),
            ('{"id": "a", "from": "A/1", "to": "B/1", "amount": 5, "mmo": "x"}', "unknown keys 'mmo'"),
            ("{" + " " * 20_000, "longer than"),
        ],
    )
    def test_bad_json_line(self, line: str, problem: str) -> None:
        good = '{"id": "z", "from": "A/1", "to": "B/1", "amount": 5}\n'
        [(number, said)] = problems(good + line + "\n" + good.replace("z", "y"))
        assert number == 2
        assert problem in said

    def test_bad_lines_do_not_stop_the_rest(self) -> None:
        items = read(HEADER + "a\n" + GOOD)
        assert [type(item) for item in items] == [BadLine, Order]

    def test_an_id_twice_is_pointed_out(self) -> None:
        [(line, problem)] = problems(HEADER + GOOD + GOOD)
        assert line == 3
        assert "'a' stands in line 2 already" in problem

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "the file is empty"),
            ("id,from,amount\n", "the header lacks to"),
            ("a,A/1,B/1,5\n", "the header lacks id, from, to, amount"),
            ("id,from,to,amount,note\n", "unknown columns 'note'"),
            ("id,from,to,amount,amount\n", "a column twice"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, text: str, problem: str) -> None:
        with pytest.raises(InvalidInput, match=problem):
            read(text)

    @given(st.lists(st.text(st.characters(exclude_categories=[])), max_size=6))
    def test_nothing_raises_but_invalid_input(self, lines: list[str]) -> None:
        for head in (HEADER, '{"id": "a"}\n'):
            for item in read_orders([head, *lines]):
                assert isinstance(item, Order | BadLine)


class ScriptedClient:
    """Answers submit_transfer as told per key; keeps count of what is open."""

    def __init__(self, answers: dict[str, TransferResult | Exception]) -> None:
        self.answers = answers
        self.sent: list[str] = []

    def submit_transfer(self, source: str, destination: str, amount: Any, **words: Any) -> Future[TransferResult]:
        key = next(key for key in self.answers if id_from_key(key) == words["id"])
        answer = self.answers[key]
        self.sent.append(key)
        if isinstance(answer, InvalidInput):
            raise answer
        future: Future[TransferResult] = Future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def result(status: str, **words: Any) -> TransferResult:
    return TransferResult(id=format_id(new_id()), status=status, **words)


def orders(keys: list[str]) -> Iterator[Order | BadLine]:
    return read_orders([HEADER, *(f"{key},A/1,B/1,5,\n" for key in keys)])


def pay(scripted: ScriptedClient, keys: list[str], in_flight: int, summary: Summary) -> list[Any]:
    return list(pay_all(cast("Client", scripted), orders(keys), in_flight, summary))


class TestPaying:
    def test_each_line_ends_as_the_bank_said_in_the_order_of_the_file(self) -> None:
        answers: dict[str, TransferResult | Exception] = {
            "ok": result("committed"),
            "again": result("committed", replayed=True),
            "no": result("aborted", refusal=Refusal("insufficient_funds", "A/1 has 1.00")),
            "bad": InvalidAmount("'x' is no amount"),
            "busy": RemoteFault("busy", "try later"),
            "lost": result("unknown", reason="no answer within 10 s"),
        }
        lines = pay(ScriptedClient(answers), list(answers), 2, Summary())
        assert [(line.line, line.status) for line in lines] == [
            (2, COMMITTED),
            (3, REPLAYED),
            (4, REFUSED),
            (5, REFUSED),
            (6, FAILED),
            (7, UNKNOWN),
        ]
        assert lines[2].text == "refused: insufficient_funds: A/1 has 1.00"
        assert lines[4].text == "failed: busy: try later"

    def test_no_more_than_in_flight_are_sent_ahead(self) -> None:
        keys = [f"k{n}" for n in range(20)]
        scripted = ScriptedClient({key: result("committed") for key in keys})
        for count, _ in enumerate(pay_all(cast("Client", scripted), orders(keys), 4, Summary())):
            assert len(scripted.sent) <= count + 4
        assert scripted.sent == keys

    def test_it_stops_when_the_bank_falls_silent(self) -> None:
        keys = [f"k{n}" for n in range(SILENT_LINES_LIMIT + 50)]
        summary = Summary()
        scripted = ScriptedClient({key: Unreachable("nobody there") for key in keys})
        lines = pay(scripted, keys, 8, summary)
        assert len(lines) == len(scripted.sent) < len(keys)
        assert "no answer to 200 lines" in summary.stopped

    def test_stopping_from_outside_still_waits_for_what_was_sent(self) -> None:
        keys = [f"k{n}" for n in range(20)]
        scripted = ScriptedClient({key: result("committed") for key in keys})
        summary = Summary()
        ended = []
        for line in pay_all(cast("Client", scripted), orders(keys), 4, summary):
            ended.append(line)
            summary.stopped = "interrupted"
        assert 4 <= len(ended) == len(scripted.sent) < 20

    @pytest.mark.parametrize(
        ("statuses", "exit_code"),
        [([COMMITTED, REPLAYED], 0), ([COMMITTED, REFUSED], 1), ([FAILED], 1), ([FAILED, UNKNOWN], 3), ([], 0)],
    )
    def test_exit_code(self, statuses: list[str], exit_code: int) -> None:
        summary = Summary()
        for status in statuses:
            summary.counts[status] += 1
        assert summary.exit_code == exit_code
