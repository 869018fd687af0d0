"""What all parts of the Client stand on: the I/O thread, time limits, and one way to ask one actor one thing."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from zbank.errors import NoAnswer, RemoteFault, ZbankError
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    AnyMessage,
    BranchInfo,
    Directory,
    GetDirectory,
    Standing,
    Welcome,
)
from zbank.transport import client_input as given
from zbank.transport.client_io import ClientShell
from zbank.transport.client_request import THE_CONTACT, THE_COORDINATOR, Ask, Near, ReplicaAsk
from zbank.transport.keyfolder import Keys, person_of
from zbank.transport.views import ActorDown, AsOf

T = TypeVar("T")

SURVEY_S = 3.0  #: in a question to all actors, who has not answered after this counts as down
SILENT_S = 0.5  #: instead, for who was silent a moment ago, or is not connected to the coordinator: others wait meanwhile
TRY_AGAIN_S = 10.0  #: who was silent is given the whole time again after so long
LONE_SURVEY_S = 1.0  #: so long a client of one branch tries the coordinator before it goes on without it


def as_it_is(answer: Any) -> Any:
    """The answer itself."""
    return answer


class ClientBase:
    """The connection. See `zbank.transport.client.Client` for all that a caller needs."""

    def __init__(
        self, endpoint: str, *, cluster: str, timeout_s: float, name: str, keys: Path | None = None, key: str = ""
    ) -> None:
        places = given.check_places(endpoint)
        self.endpoint = endpoint  #: as it was given
        given.check_names(cluster, name)
        self._timeout_us = given.timeout_us(timeout_s)
        self._asker = given.Asker()
        self._near: Near | None = None  #: read at replicas
        self._origin: ClientBase | None = None  #: of a client `on_behalf_of` somebody: whose connection it shares
        self._silent: dict[str, float] = {}  #: by target that did not answer a survey: when it last was given the whole time
        self.key: Keys | None = None if keys is None else Keys(keys, person_of(keys, key), cluster=cluster)
        self._io = ClientShell(places, cluster, name, self.key)
        self._routes = self._io.core.routes
        self._finalizer = weakref.finalize(self, self._io.begin_close)

    def on_behalf_of(self, caller: str, request_id: str = "") -> Self:
        """The same connection, in the name of somebody whom you know: ids belong to their caller, and the journal names
        who asked; logs of all that its requests pass name the `request_id`. It ends with the client that it came from, and
        `close` of either closes both.
        """
        given.check_text(caller, "a caller's name", given.MAX_HELLO_CHARS)
        given.check_text(request_id, "a request's id", given.MAX_HELLO_CHARS)
        other = copy.copy(self)
        other._asker, other._origin = given.Asker(caller, request_id), self
        return other

    def at_replicas(
        self, *, max_lag_s: float | None = None, after: Mapping[str, int] | None = None, timeout_s: float | None = None
    ) -> Self:
        """The same connection, but `account`, `balance`, `accounts` and `statement` ask replicas: the branch has no work by it,
        and what they tell may be a moment old; each account says as of when (`as_of`).

        `max_lag_s`: raise RemoteFault `stale` for anything older; None = however old. `after`: by branch, a row that must be
        there, as in `TransferResult.positions`: so you read what you wrote. It is waited for up to `timeout_s`.
        """
        other = copy.copy(self)
        other._near, other._origin = given.near(max_lag_s, after or {}), self
        other._timeout_us = self._limit_us(timeout_s)
        return other

    def close(self) -> None:
        """End what is outstanding (reads: ClientClosed; writes already sent: status `unknown`); close the sockets."""
        self._finalizer.detach()
        self._io.close()

    @property
    def coordinator(self) -> str:
        """The coordinator's address, as far as it is known; "" = not."""
        return self._routes.coordinator_endpoint

    @property
    def outstanding(self) -> int:
        """How many requests have not ended."""
        return len(self._io.core.requests)

    def _limit_us(self, timeout_s: float | None) -> int:
        return self._timeout_us if timeout_s is None else given.timeout_us(timeout_s)

    def _survey_us(self, most_s: float = SURVEY_S) -> int:
        return min(self._timeout_us, int(most_s * 1_000_000))

    def _ask(
        self,
        target: str,
        message: AnyMessage,
        accepts: type,
        convert: Callable[[Any], T],
        limit_us: int | None = None,
    ) -> Future[T]:
        """Send a read to a branch or to the coordinator."""
        limit_us = self._timeout_us if limit_us is None else limit_us
        request = Ask(target, message, limit_us, (accepts,), convert, NoAnswer)
        self._io.submit(request)
        return request.future

    def _read(self, target: str, message: AnyMessage, accepts: type, convert: Callable[[Any], T]) -> T:
        """Send a read and wait for its answer."""
        self._io.check_may_wait()
        return self._ask(target, message, accepts, convert).result()

    def _look(
        self, branch: str, message: AnyMessage, accepts: type, convert: Callable[[str, Any, AsOf | None], T]
    ) -> T:
        """Read at a branch, or at a replica of it."""
        if self._near is None:
            return self._read(branch, message, accepts, lambda answer: convert(branch, answer, None))
        self._io.check_may_wait()

        def convert_at(answer: Any, at: Standing) -> T:
            return convert(branch, answer, AsOf(at.seq, at.behind, at.lag_us))

        request = ReplicaAsk(branch, message, self._timeout_us, accepts, convert_at, self._near)
        self._io.submit(request)
        return request.future.result()

    def _contact(self) -> Welcome:
        """Who answers at the client's own address."""
        known = self._routes.contact
        if known is not None:
            return known
        return self._io.call(Ask[Welcome](THE_CONTACT, None, self._timeout_us, (Welcome,), as_it_is, NoAnswer))

    def _survey(self, message: AnyMessage, accepts: type[T]) -> list[T | ActorDown]:
        """Ask the coordinator and every branch the same, at once; who does not answer stands there as ActorDown."""
        self._io.check_may_wait()
        contact = self._contact()
        waits: list[tuple[str, str, str, Callable[[], T]]] = []
        led = None if self._routes.has_several else self._ask_coordinator(message, accepts)
        infos: list[BranchInfo] = []
        why: RemoteFault | None = None
        try:
            infos = self._known_branches()
        except RemoteFault as error:  # it has stopped: how it does it still tells
            why = error
        led = led or self._ask_coordinator(message, accepts)  # of several, who has the directory leads
        if led is not None:
            waits.append((COORDINATOR, "", self._routes.coordinator_endpoint, led))
        if contact.role == BRANCH and all(info.name != contact.name for info in infos):
            infos.append(self._lone_info(contact))  # it was retired, or is refused
        for info in infos:
            asked = self._ask_patiently(info.name, message, accepts, is_up=info.up)
            waits.append((BRANCH, info.name, info.endpoint, asked))
        found: list[T | ActorDown] = []
        for role, name, where, asked in waits:
            try:
                found.append(asked())
            except ZbankError as error:
                found.append(ActorDown(role, name, where, str(error)))
        if why is not None and all(isinstance(one, ActorDown) for one in found):
            raise why
        return found

    def _ask_coordinator(self, message: AnyMessage, accepts: type[T]) -> Callable[[], T] | None:
        if not self._routes.coordinator_endpoint:
            return None
        return self._ask_patiently(THE_COORDINATOR, message, accepts)

    def _ask_patiently(
        self, target: str, message: AnyMessage, accepts: type[T], *, is_up: bool = True, most_s: float = SURVEY_S
    ) -> Callable[[], T]:
        """Ask now; what comes back waits for the answer, or raises. Who was silent just now is not waited for long again."""
        asked_s = time.monotonic()
        is_short = not is_up or asked_s - self._silent.get(target, -TRY_AGAIN_S) < TRY_AGAIN_S
        limit_us = self._survey_us(min(SILENT_S, most_s) if is_short else most_s)
        future: Future[T] = self._ask(target, message, accepts, as_it_is, limit_us)

        def result() -> T:
            try:
                answer = future.result()
            except ZbankError:
                if not is_short:
                    self._silent[target] = asked_s
                raise
            self._silent.pop(target, None)
            return answer

        return result

    def _known_branches(self) -> list[BranchInfo]:
        """The directory, freshly asked for; the last one when the coordinator is silent; else a lone branch itself."""
        self._io.check_may_wait()
        contact = self._contact()
        most_s = LONE_SURVEY_S if contact.role == BRANCH else SURVEY_S
        try:
            directory = self._ask_patiently(THE_COORDINATOR, GetDirectory(), Directory, most_s=most_s)()
        except ZbankError:
            known = list(self._routes.directory.values())
            if not known and contact.role != BRANCH:
                raise
            return known or [self._lone_info(contact)]
        return list(directory.branches)

    def _lone_info(self, contact: Welcome) -> BranchInfo:
        return BranchInfo(contact.name, self._routes.endpoint, contact.currency, contact.instance, contact.epoch, True)
