"""The requests of a client that have not ended: where each goes, how long it has, and how it ends when it cannot go on."""

from __future__ import annotations

from zbank.errors import RemoteFault, ZbankError
from zbank.protocol.messages import Fault
from zbank.transport.client_peer import CONNECT_US, AnyRequest, Peer
from zbank.transport.client_routes import Routes


def fault_of(fault: Fault) -> RemoteFault:
    """As a caller gets it."""
    return RemoteFault(fault.code, fault.detail, fault.retry_after_ms)


class Ledger:
    """Requests and the peers that they go to."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.peers: dict[str, Peer] = {}
        self.requests: dict[int, AnyRequest] = {}  #: all that have not ended, by number
        self._n = 0

    def _queue(self, request: AnyRequest, peer: Peer) -> None:
        request.peer = peer
        request.retry_us = 0
        if not request.queued:
            request.landed()
            request.queued = True
            peer.outbox.append(request)

    def _leave_peer(self, request: AnyRequest) -> None:
        """The request waits for its route again, under a new number: late answers from the old place do not count."""
        del self.requests[request.n]
        request.landed()
        self._n += 1
        request.n = self._n
        request.peer = None
        request.queued = False
        self.requests[request.n] = request

    def _last_us(self, request: AnyRequest) -> int:
        """When the request is given up: earlier than its deadline when nobody ever answered at its address."""
        deadline_us: int = request.deadline_us
        if not request.sends:
            peer = self.peers.get(self._endpoint_of(request))
            if peer is None or not peer.met:
                return min(deadline_us, request.submitted_us + CONNECT_US)
        return deadline_us

    def _endpoint_of(self, request: AnyRequest) -> str:
        """Where the request goes, or whom it waits for."""
        if request.peer is not None:
            return str(request.peer.endpoint)
        return self.routes.coordinator_endpoint or self.routes.endpoint

    def _expire(self, request: AnyRequest) -> None:
        endpoint = self._endpoint_of(request)
        routes = self.routes
        if routes.contact is None and routes.refusals and not request.sends:
            request.fault = fault_of(next(iter(routes.refusals.values())))
        request.give_up(routes.known_as(endpoint), routes.shown(endpoint))

    def _end(self, request: AnyRequest, error: ZbankError) -> None:
        """End a request that cannot go on; a write that a server may have got ends as `unknown`."""
        del self.requests[request.n]
        request.landed()
        if request.is_write and request.sends > request.answered:
            request.end_unknown(str(error))
        else:
            request.end_failed(error)

    def _owed_by(self, peer: Peer) -> list[AnyRequest]:
        return [request for request in self.requests.values() if request.peer is peer]
