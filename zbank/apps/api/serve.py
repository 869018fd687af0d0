"""Runs the bridge: waitress in front of the Flask app, one long-lived client behind it, a stop that loses no answer."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType
from typing import Any

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel

from zbank import Client
from zbank.apps.api.app import create_app
from zbank.apps.api.bridge import Bridge, RestSettings
from zbank.apps.api.views.bulk import MAX_BULK_BYTES
from zbank.apps.serving import listens_here_only
from zbank.config import url_host
from zbank.errors import InvalidConfig, ZbankError

MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 1_000  #: each may have one request waiting: what waits is bounded so
IDLE_S = 30  #: a connection that sends nothing, or not all of a request, for so long is closed
STOP_S = 10.0  #: requests that are being answered have so long to end
TURN_S = 0.5
TOKENS_S = 10.0  #: so long the coordinator is waited for, where nobody is let in without tokens

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

MAKE_TOKEN = "zbank tokens make --holder NAME --role operator"

log = logging.getLogger("zbank.rest")


def run(settings: RestSettings) -> int:
    """Serve until SIGTERM or SIGINT; gives the process's exit code. Says on stderr what went wrong."""
    try:
        bank = Client(
            settings.endpoint,
            cluster=settings.cluster,
            timeout_s=settings.timeout_s,
            name="rest",
            keys=settings.keys or "",
            key=settings.key,
        )
    except InvalidConfig as error:
        log.error("%s: %s", error.code, error.detail)
        return EXIT_USAGE
    with bank:
        app, bridge = create_app(bank, settings)
        try:
            problem, code = _why_not_open(bridge)
            if problem:
                log.error(problem)
                return code
            sockets: dict[int, Any] = {}
            server = _listen(app, settings, sockets)
        except OSError as error:
            log.error("cannot listen at %s:%d: %s; give another --host or --port", settings.host, settings.port, error.strerror)
            return EXIT_USAGE
        except ZbankError as error:
            log.error("%s: %s", error.code, error.detail)
            return EXIT_FAILED
        bridge.tokens.start()
        if _is_read_on_the_way(settings):
            log.warning("whoever is on the way can read the tokens: put the bridge behind a proxy with TLS (docs/security.md)")
        log.info("REST serves at http://%s:%d, documentation at /docs", settings.host, settings.port)
        if bridge.tokens.is_open:
            log.info("no tokens were made: anybody on this machine may do anything here (%s)", MAKE_TOKEN)
        _serve(server, sockets, bridge)
        log.info("REST stopped")
    return EXIT_DONE


def _is_read_on_the_way(settings: RestSettings) -> bool:
    """Plain HTTP leaves this machine."""
    return not listens_here_only(f"tcp://{url_host(settings.host)}:{settings.port}")


def _why_not_open(bridge: Bridge) -> tuple[str, int]:
    """Beyond this machine nobody is let in without a token, so there has to be one; if there is none, what to exit with."""
    bridge.tokens.refresh()
    if bridge.settings.is_here_only:
        return "", EXIT_DONE
    end_s = time.monotonic() + TOKENS_S
    while not bridge.tokens.is_known and time.monotonic() < end_s:
        time.sleep(0.2)
        bridge.tokens.refresh()
    where = f"{bridge.settings.host}:{bridge.settings.port}"
    if not bridge.tokens.is_known:
        who = f"the coordinator at {bridge.settings.endpoint}"
        # It may come yet, as after a power cut: whoever starts this process should try again.
        return f"{who} does not answer, so it is not known who may use {where}: start it first", EXIT_FAILED
    if not bridge.tokens.is_any:
        return f"{where} can be reached from other machines and no token was made: first `{MAKE_TOKEN}`", EXIT_USAGE
    return "", EXIT_DONE


def _listen(app: Any, settings: RestSettings, sockets: dict[int, Any]) -> Any:
    """waitress's server: it reads a whole request before a thread is given to it, so that slow senders hold none.

    All that it has open is in `sockets`, by file descriptor.
    """
    return waitress.create_server(
        app,
        map=sockets,
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        connection_limit=MAX_CONNECTIONS,
        channel_timeout=IDLE_S,
        cleanup_interval=IDLE_S // 3,
        max_request_header_size=MAX_HEADER_BYTES,
        max_request_body_size=MAX_BULK_BYTES + 1,
        asyncore_use_poll=True,
        trusted_proxy=settings.trusted_proxy or None,
        trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"} if settings.trusted_proxy else set(),
        clear_untrusted_proxy_headers=True,
        ident=None,
    )


def _serve(server: Any, sockets: dict[int, Any], bridge: Bridge) -> None:
    """Until told to stop: then no new connections, event streams end, and what is being answered has STOP_S to end."""
    stop = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    while not stop:
        wasyncore.loop(timeout=TURN_S, use_poll=True, map=sockets, count=1)
    for listener in [one for one in sockets.values() if one.accepting]:
        wasyncore.dispatcher.close(listener)
    bridge.close()
    end_s = time.monotonic() + STOP_S
    while _is_busy(sockets) and time.monotonic() < end_s:
        wasyncore.loop(timeout=TURN_S, use_poll=True, map=sockets, count=1)
    server.task_dispatcher.shutdown(timeout=1)


def _is_busy(sockets: dict[int, Any]) -> bool:
    """A request is being answered, or its answer is still on its way."""
    channels = [one for one in list(sockets.values()) if isinstance(one, HTTPChannel)]
    return any(channel.requests or channel.total_outbufs_len for channel in channels)
