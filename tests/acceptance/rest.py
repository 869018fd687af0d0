"""A real `zbank rest` in front of a cluster, and HTTP requests to it by the standard library alone."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.acceptance.cluster import Cluster, free_ports, wait_until
from zbank.apps.api.feed import positions_text

ANSWER_LIMIT_S = 30.0
PROBLEM = "application/problem+json"
LOST = (OSError, http.client.HTTPException)  #: what is raised when the bridge goes away before its answer is whole


class Told(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]  #: by lower-case name
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem; "" of a success."""
        return str(self.json["code"]) if self.headers.get("content-type") == PROBLEM else ""

    @property
    def is_replayed(self) -> bool:
        """An earlier request had done it."""
        return self.headers.get("idempotency-replayed") == "true"


class Rest:
    """One bridge. `close` it; it then has to end as it should."""

    def __init__(self, cluster: Cluster, *flags: str, wait: bool = True) -> None:
        self.cluster = cluster
        self.port = free_ports(1)
        self.flags = flags
        self.secret = ""  #: a token to send with each request
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        """Start it (again) at its port; wait until the bank behind it answers."""
        port = str(self.port)
        self.process = self.cluster.spawn("rest", "--endpoint", self.cluster.endpoint, "--port", port, *self.flags)
        path = "/readyz" if wait else "/healthz"
        wait_until(lambda: self._answers(path), what=f"the bridge answers {path} with 200")

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        try:
            return self.get(path).status == 200
        except LOST:
            return False

    def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        key: str = "",
        body: bytes | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """One request on a connection of its own; `value` is sent as JSON, `body` as it is."""
        sent = {"Content-Type": "application/json"} if value is not None or body is not None else {}
        if key:
            sent["Idempotency-Key"] = key
        token = self.secret if secret is None else secret
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if value is not None:
            body = json.dumps(value).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_LIMIT_S)
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            answer = connection.getresponse()
            told = Told(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()
        self._check(told)
        return told

    def _check(self, told: Told) -> None:
        """What holds for every answer whatsoever."""
        assert told.status < 500 or told.status == 503, told
        assert told.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" in told.headers
        assert b"Traceback" not in told.body
        if told.status >= 400 and told.headers["content-type"] != "application/json":
            assert told.headers["content-type"] == PROBLEM, told
            assert {"type", "title", "status", "code", "detail"} == set(told.json)
            assert told.json["status"] == told.status

    def get(self, path: str, **more: Any) -> Told:
        """GET."""
        return self.ask("GET", path, **more)

    def post(self, path: str, value: Any = None, **more: Any) -> Told:
        """POST."""
        return self.ask("POST", path, value, **more)

    def pay(self, amount: Any, key: str, *, source: str = "Mumbai/1001", to: str = "Delhi/1002", **more: Any) -> Told:
        """A transfer."""
        return self.post("/v1/transfers", {"from": source, "to": to, "amount": amount}, key=key, **more)

    def settle(self) -> None:
        """Until nothing is under way: "committed" does not wait for ever for a slow branch to apply it (PROTOCOL P10)."""
        with self.cluster.client() as bank:
            wait_until(
                lambda: not any(getattr(actor, "in_flight", 0) for actor in bank.status()),
                what="all that was committed is applied",
            )

    def place(self) -> str:
        """The id of an event that has just been: a stream that begins there hears all that every actor does from now on. One
        that begins without it hears an actor that did not answer at once from where that first does."""
        found: dict[str, int] = {}
        with self.cluster.client() as bank:

            def is_whole() -> bool:
                found.update(bank.events(None).positions)
                return len(found) == 1 + len(self.cluster.branches) and -1 not in found.values()

            wait_until(is_whole, what="where every journal stands")
        return positions_text(found)

    def balance(self, account: str, **more: Any) -> str:
        """A balance, with all that was committed."""
        self.settle()
        branch, number = account.split("/")
        told = self.get(f"/v1/branches/{branch}/accounts/{number}", **more)
        assert told.status == 200, told
        return str(told.json["balance"])

    def make_token(self, role: str, *accounts: str, holder: str = "") -> str:
        """The secret of a new token."""
        flags = [flag for account in accounts for flag in ("--account", account)]
        name = holder or f"{role}-{len(accounts)}"
        made = self.cluster.cli("tokens", "make", "--holder", name, "--role", role, "--json", *flags)
        assert made.returncode == 0, made.stderr
        return str(json.loads(made.stdout)["secret"])

    def close(self) -> None:
        """SIGTERM: it ends well and has nothing to complain about."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            _, said = self.process.communicate(timeout=ANSWER_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode == 0, said
        assert "Traceback" not in said
        assert "failed" not in said


class Stream:
    """An open event stream."""

    def __init__(self, rest: Rest, path: str = "/v1/events", *, last: str | None = None, secret: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=ANSWER_LIMIT_S)
        headers = {} if last is None else {"Last-Event-ID": last}
        token = secret or rest.secret
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._connection.request("GET", path, headers=headers)
        self.answer = self._connection.getresponse()
        self.status = self.answer.status
        if self.status == 200:
            assert self.answer.readline().startswith(b"retry:")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(id, event), as they come; ends when the stream does."""
        fields: dict[str, str] = {}
        while line := self.answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                event: dict[str, Any] = json.loads(fields["data"])
                assert event["kind"] == fields["event"]
                yield fields["id"], event
                fields = {}

    def hear(self, is_enough: Callable[[list[dict[str, Any]]], bool]) -> list[tuple[str, dict[str, Any]]]:
        """(id, event), as they come, until these events are enough. Each actor's come in order, but an actor that is slow to
        answer is left to the next round: its events may come after later ones of others."""
        found: list[tuple[str, dict[str, Any]]] = []
        for place, event in self.events():
            found.append((place, event))
            if is_enough([one for _, one in found]):
                return found
        raise AssertionError(f"the stream ended after {found}")

    def close(self) -> None:
        """Leave."""
        self.answer.close()
        self._connection.close()
