"""The client without its sockets: requests, retries, deadlines, routing. All that changes a request is in this file.

The shell (`client_io`) calls `submit`, `on_frame`, `on_writable` and `on_time` with the time of a monotonic clock, and
sends what stands in the queues of each `Peer`. A request is resent with the same number and the same id until it
is answered or its deadline is over; servers know an id again (PROTOCOL P7), and an answer that comes twice is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

from zbank.errors import ClientClosed, RemoteFault, Unreachable, ZbankError
from zbank.protocol.messages import (
    CLIENT,
    OUT_OF_OFFICE,
    PROTOCOL_VERSION,
    AnyMessage,
    Beat,
    Directory,
    Fault,
    GetDirectory,
    Hello,
    Standing,
    Welcome,
)
from zbank.transport.client_ledger import Ledger, fault_of
from zbank.transport.client_peer import (
    BEAT_US,
    IDLE_US,
    MAX_DOUBLINGS,
    MAX_MOVES,
    MIN_TICK_US,
    REFRESH_US,
    RESEND_US,
    RETRY_US,
    AnyRequest,
    Peer,
)
from zbank.transport.client_request import FAULT_RETRIES
from zbank.transport.client_routes import Routes


class ClientCore(Ledger):
    """State of one client. One thread (the shell's) calls it; `requests` may be counted from others."""

    def __init__(self, places: Sequence[str], cluster: str, name: str, now_us: int) -> None:
        """`places`: where the contact may be."""
        super().__init__(Routes(places))
        self.opened: list[Peer] = []  #: for the shell: connect these
        self.closed: list[Peer] = []  #: for the shell: close these
        self.next_due_us = now_us + BEAT_US  #: when `on_time` has something to do
        self._hello = Hello(PROTOCOL_VERSION, cluster, CLIENT, name)
        self._ready: dict[str, Peer] = {}  #: targets whose route is certain: the short cut of `submit`
        self._directory_n = 0  #: number of the GetDirectory that awaits its answer; 0 = none
        self._directory_us = -REFRESH_US  #: when it was queued
        self._look_around(now_us)

    # --- what the shell calls -----------------------------------------------------------------------------------------

    def submit(self, request: AnyRequest, now_us: int) -> None:
        """Take charge of a request: from here on it ends by itself, by its deadline at the latest."""
        self._n = n = self._n + 1
        request.n = n
        request.submitted_us = request.since_us = now_us
        request.deadline_us = deadline_us = now_us + request.timeout_us
        self.requests[n] = request
        peer = self._ready.get(request.target)
        if peer is None or request.message is None:
            self._place(request, now_us)
        else:
            request.peer = peer
            request.queued = True
            peer.outbox.append(request)
        due_us = min(now_us + BEAT_US, deadline_us)
        if due_us < self.next_due_us:
            self.next_due_us = due_us

    def on_writable(self, peer: Peer, now_us: int) -> None:
        """The connection stands (again): ask whether the peer still knows this session."""
        peer.blocked = False
        if not peer.hello_n:
            self._beat(peer, now_us)
        elif not peer.controls:  # the Hello went with the connection before
            self._greet(peer, now_us)

    def on_frame(self, peer: Peer, envelopes: list[tuple[int, AnyMessage]], now_us: int) -> None:
        """Answers have come."""
        peer.heard_us = now_us
        requests = self.requests
        for n, message in envelopes:
            request = requests.pop(n, None)
            if request is None:
                self._on_control(peer, n, message, now_us)
                continue
            request.landed()
            if type(message) is Fault:
                self._on_fault(request, message, now_us)
            elif not request.accept(message):
                requests[n] = request  # no answer to this request: it goes on waiting
                self.next_due_us = min(self.next_due_us, request.retry_us or self.next_due_us)

    def on_time(self, now_us: int) -> None:
        """Deadlines, resends and pings. To be called when `next_due_us` is reached."""
        due_us = now_us + (BEAT_US if self.requests else IDLE_US)
        waiting = False
        oldest_us: dict[str, int] = {}  #: since when a peer owes an answer
        for request in list(self.requests.values()):
            last_us = self._last_us(request)
            if now_us >= last_us:
                del self.requests[request.n]
                request.landed()
                self._expire(request)
                continue
            peer = request.peer
            if peer is None:
                waiting = True
                self._place(request, now_us)
            elif not request.queued:
                if not request.retry_us:
                    oldest_us[peer.endpoint] = min(request.since_us, oldest_us.get(peer.endpoint, now_us))
                again_us = request.retry_us or request.sent_us + (RESEND_US << min(request.sends - 1, MAX_DOUBLINGS))
                if now_us >= again_us:
                    self._queue(request, peer)
                else:
                    due_us = min(due_us, again_us)
            due_us = min(due_us, last_us)
        for peer in list(self.peers.values()):
            oldest = oldest_us.get(peer.endpoint)
            self._watch(peer, oldest, waiting, now_us)
            if oldest is not None and not peer.hello_n:
                due_us = min(due_us, max(peer.heard_us, oldest, peer.beat_us) + BEAT_US)
        self.next_due_us = max(due_us, now_us + MIN_TICK_US)

    def peer_failed(self, peer: Peer, reason: str) -> None:
        """The address cannot even be tried: all that goes there ends."""
        error = Unreachable(f"{peer.endpoint} is no address that can be connected to: {reason}")
        for request in self._owed_by(peer):
            self._end(request, error)
        self._forget(peer)

    def close(self) -> None:
        """End everything: reads with ClientClosed, writes that were sent as `unknown`."""
        closed = "the client was closed before the answer came: ask again with the same id"
        for request in list(self.requests.values()):
            self._end(request, ClientClosed(closed))

    # --- where requests go --------------------------------------------------------------------------------------------

    def _place(self, request: AnyRequest, now_us: int) -> None:
        """Give the request its peer, or leave it waiting (peer None) for the contact or the directory."""
        try:
            endpoint = self.routes.find(request.target, request.since_us)
            ready = endpoint is not None and self._built(request)
        except ZbankError as error:
            self._end(request, error)
            self._meet_again(request.target, now_us)
            return
        if endpoint is None or not ready:
            request.peer = None
            request.queued = False
            if self.routes.contact is None:
                self._look_around(now_us)
            elif self.routes.as_of_us < request.since_us:
                self._ask_directory(now_us, request.since_us)
            else:  # the directory is right, and a replica that it calls the branch has to hear of that yet
                self._meet_again(request.target, now_us)
            return
        contact = self.routes.contact
        if request.message is None and contact is not None:  # only the contact itself was asked for
            del self.requests[request.n]
            request.accept(contact)
            return
        peer = self._peer(endpoint, now_us)
        self._ready[request.target] = peer
        if request.peer is not peer or not request.sends:
            self._queue(request, peer)

    def _built(self, request: AnyRequest) -> bool:
        """Make the message of a request that waited for its branch's currency; False when that is still not known."""
        if request.message is not None or request.build is None:
            return True
        code = self.routes.currency_of(request.currency_branch)
        if code:
            request.message = request.build(code)
        elif self.routes.as_of_us >= request.since_us:
            self.routes.find(request.currency_branch, request.since_us)  # raises: there is no such branch
        return bool(code)

    def _peer(self, endpoint: str, now_us: int) -> Peer:
        peer = self.peers.get(endpoint)
        if peer is None:
            peer = self.peers[endpoint] = Peer(endpoint)
            self.opened.append(peer)
            self._greet(peer, now_us)
        return peer

    def _meet_again(self, target: str, now_us: int) -> None:
        """A request had nowhere to go; if another actor answers at the branch's address, ask by a new Hello who does."""
        info = self.routes.directory.get(target)
        peer = None if info is None else self.peers.get(info.endpoint)
        if peer is not None and not peer.hello_n and now_us - peer.hello_us >= RETRY_US:
            self.routes.forget(peer.endpoint)
            self._greet(peer, now_us)

    def _reroute(self, now_us: int) -> None:
        """Routes have changed: place everything anew, then drop the connections that nothing leads to."""
        self._ready.clear()
        for request in list(self.requests.values()):
            old = request.peer
            if old is None or self._leads_elsewhere(request):
                self._leave_peer(request)
                self._place(request, now_us)
        wanted = self.routes.endpoints() | {request.peer.endpoint for request in self.requests.values() if request.peer}
        for endpoint in self.peers.keys() - wanted:
            self._forget(self.peers[endpoint])

    def _leads_elsewhere(self, request: AnyRequest) -> bool:
        try:
            return self.routes.find(request.target, request.since_us) != self._endpoint_of(request)
        except ZbankError:
            return True

    def _ask_directory(self, now_us: int, since_us: int) -> None:
        """Ask the coordinator for the directory, unless an answer is awaited or the one in hand is new enough."""
        endpoint = self.routes.coordinator_endpoint
        awaited = self._directory_n and now_us - self._directory_us < REFRESH_US
        if not endpoint or awaited or self.routes.as_of_us >= since_us:
            return
        peer = self._peer(endpoint, now_us)
        self._n += 1
        self._directory_n, self._directory_us = self._n, now_us
        peer.controls = [item for item in peer.controls if type(item[1]) is not GetDirectory]
        peer.controls.append((self._n, GetDirectory()))

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _greet(self, peer: Peer, now_us: int) -> None:
        """Begin a session: Hello first, and behind it everything that this peer owes an answer."""
        self._n += 1
        peer.hello_n, peer.hello_us = self._n, now_us
        peer.controls = [(self._n, self._hello)]
        if self._directory_n and peer.endpoint == self.routes.coordinator_endpoint:
            peer.controls.append((self._directory_n, GetDirectory()))
        for request in sorted(self._owed_by(peer), key=lambda request: request.n):
            if not request.retry_us:
                self._queue(request, peer)

    def _beat(self, peer: Peer, now_us: int) -> None:
        self._n += 1
        peer.beat_n, peer.beat_us = self._n, now_us
        peer.controls = [item for item in peer.controls if type(item[1]) is not Beat]
        peer.controls.append((self._n, Beat(answer=False)))

    def _has_no_directory(self, peer: Peer, fault: Fault, now_us: int) -> None:
        """The coordinator gives no directory: what waits for it ends, unless somebody else may lead."""
        for request in [request for request in self.requests.values() if request.peer is None]:
            if not self._is_turned_away(request, peer, fault, now_us):
                self._directory_n = 0
                self._end(request, fault_of(fault))

    def _on_control(self, peer: Peer, n: int, message: AnyMessage, now_us: int) -> None:
        """An answer to Hello, Beat or GetDirectory; or one that comes too late, or is to nothing, and is ignored."""
        if type(message) is Standing:
            peer.standing = message
        elif n and n == peer.hello_n:
            if type(message) is Welcome:
                self._welcomed(peer, message, now_us)
            elif type(message) is Fault:
                self._rejected(peer, message, now_us)
        elif n and n == self._directory_n and type(message) is Directory:
            asked_us, self._directory_n = self._directory_us, 0
            self.routes.learn(message, asked_us)
            self._reroute(now_us)
        elif n and n in (peer.beat_n, self._directory_n) and type(message) is Fault:
            if message.code == "hello_first":
                if not peer.hello_n:
                    self._greet(peer, now_us)
            elif n == self._directory_n and message.code not in FAULT_RETRIES:
                self._has_no_directory(peer, message, now_us)

    def _welcomed(self, peer: Peer, welcome: Welcome, now_us: int) -> None:
        routes = self.routes
        known = peer.endpoint in routes.names
        peer.hello_n, peer.hello_us = 0, now_us
        peer.met = True
        if routes.has_several and peer.endpoint in routes.places:
            contact = routes.contact
            if not routes.chooses(peer.endpoint, welcome):
                if contact is not routes.contact:  # it leads no more
                    self._reroute(now_us)
                return
            if routes.contact is None:
                known, self._directory_n = False, 0
        if not routes.meet(peer.endpoint, welcome):
            return
        if known:  # another actor than before answers here: what the directory says of it is old
            for request in self._owed_by(peer):
                request.since_us = now_us
        if routes.coordinator_endpoint == routes.endpoint:
            self._ask_directory(now_us, now_us)
        self._reroute(now_us)

    def _rejected(self, peer: Peer, fault: Fault, now_us: int) -> None:
        """The peer will have no session with us: wrong cluster, wrong version, or not now."""
        peer.hello_n = 0
        if fault.code in FAULT_RETRIES:
            peer.hello_n, peer.hello_us = -1, now_us  # `_watch` says Hello again
            return
        routes = self.routes
        if routes.contact is None and routes.has_several and peer.endpoint in routes.places:
            routes.refusals[peer.endpoint] = fault
            if len(routes.refusals) < len(routes.places):  # another one may take us
                peer.hello_n, peer.hello_us = -1, now_us
                return
        lost = self._owed_by(peer) if routes.contact is not None else list(self.requests.values())
        for request in lost:
            request.answered += 1 if request.sends else 0
            self._end(request, fault_of(fault))
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        """Close the connection; the next request that leads there begins with a new one, and asks who it is that answers."""
        self._ready = {target: other for target, other in self._ready.items() if other is not peer}
        self.routes.forget(peer.endpoint)
        if self.peers.pop(peer.endpoint, None) is not None:
            self.closed.append(peer)

    # --- faults and time ----------------------------------------------------------------------------------------------

    def _on_fault(self, request: AnyRequest, fault: Fault, now_us: int) -> None:
        """A server's "not done, or not known". The request has been taken out of `requests`."""
        peer: Peer | None = request.peer
        self.requests[request.n] = request
        if request.is_early():
            self.next_due_us = min(self.next_due_us, request.retry_us)
            return
        if fault.code == "hello_first":
            # While a Hello is under way this answers a frame before it; unless the request was sent after that Hello.
            if peer is not None and (not peer.hello_n or request.sent_us > peer.hello_sent_us):
                self._greet(peer, now_us)
            return
        request.answered += 1
        error = request.stale() or fault_of(fault)
        if fault.code in FAULT_RETRIES or self._is_turned_away(request, peer, fault, now_us):
            request.fault = error
            request.retry_us = now_us + (fault.retry_after_ms * 1000 or RETRY_US)
            self.next_due_us = min(self.next_due_us, request.retry_us)
        elif fault.code == "not_here" and request.moves < MAX_MOVES:
            request.moves += 1
            request.since_us = now_us
            self._leave_peer(request)
            self._place(request, now_us)
        else:
            self._end(request, error)

    def _watch(self, peer: Peer, oldest_us: int | None, waiting: bool, now_us: int) -> None:
        """Greet a peer again that did not say Welcome; ping one that is silent, and ask whether it has moved."""
        if peer.hello_n:
            wanted = waiting or oldest_us is not None or bool(peer.outbox)
            if wanted and not peer.blocked and now_us - peer.hello_us >= RESEND_US:
                self._greet(peer, now_us)
        elif oldest_us is not None and now_us - max(peer.heard_us, oldest_us, peer.beat_us) >= BEAT_US:
            self._beat(peer, now_us)
        gone = bool(peer.blocked and peer.outbox)
        silent = oldest_us is not None and now_us - max(peer.heard_us, oldest_us) >= REFRESH_US
        if (gone or silent) and peer.endpoint != self.routes.coordinator_endpoint:
            self._ask_directory(now_us, now_us - REFRESH_US)
        elif gone or silent:
            self._look_around(now_us)

    def _is_turned_away(self, request: AnyRequest, peer: Peer | None, fault: Fault, now_us: int) -> bool:
        """The contact is a coordinator that has stopped. Where it may be somewhere else, it is looked for there, and asked once
        more: then it is final."""
        routes = self.routes
        if fault.code != OUT_OF_OFFICE or not routes.has_several or peer is None or peer.endpoint != routes.endpoint:
            return False
        self._look_around(now_us)
        again = isinstance(request.fault, RemoteFault) and request.fault.remote_code == fault.code
        request.fault = fault_of(fault)
        return not again

    def _look_around(self, now_us: int) -> None:
        """Ask who is at each place where the contact may be. A contact that leads is not asked; one that is a branch knows
        where its coordinator is by now."""
        for place in self.routes.places:
            leads = place == self.routes.endpoint == self.routes.coordinator_endpoint
            peer = self._peer(place, now_us)
            if not leads and not peer.hello_n and not peer.blocked and now_us - peer.hello_us >= RESEND_US:
                self._greet(peer, now_us)
