"""The health check of a container: asks the part that runs in it, and nobody else. Exit code 0: it answers; 1: it does not.

ZBANK_PART says which part it is (`coordinator`, a branch's name, a replica's, `rest` or `dashboard`), ZBANK_PORT at which port
a replica listens, ZBANK_CONFIG where the cluster file is. `zbank status` would not do: it fails when any part of the bank is
away, and starting this one anew would not help then.
"""

from __future__ import annotations

import http.client
import os
import sys

import zmq

from zbank.config import COORDINATOR_NAME, ClusterConfig, DashboardConfig, RestConfig, load_config, parse_endpoint
from zbank.errors import InvalidConfig, ZbankError
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import CLIENT, PROTOCOL_VERSION, Fault, Hello, Welcome
from zbank.transport.keyfolder import Keys, find_folder
from zbank.transport.sockets import make_dealer

LIMIT_S = 4
EVERYWHERE = ("0.0.0.0", "*", "[::]", "::")


def main() -> int:
    """Ask; say on stdout what came of it, which `docker inspect` shows."""
    part = os.environ.get("ZBANK_PART", "")
    try:
        cluster = load_config(os.environ.get("ZBANK_CONFIG", "/etc/zbank/cluster.toml"))
        said = ask(cluster, part)
    except (ZbankError, OSError, http.client.HTTPException) as error:
        print(f"{part}: {error}")
        return 1
    print(f"{part}: {said}")
    return 0


def ask(cluster: ClusterConfig, part: str) -> str:
    """What it says. Raises ZbankError or OSError when it does not answer."""
    if part == COORDINATOR_NAME:
        return ask_actor(cluster, part, cluster.coordinator.bind)
    if part in cluster.branches:
        return ask_actor(cluster, part, cluster.branches[part].bind)
    if part == "rest":
        return ask_web(cluster.rest or RestConfig(), "/healthz")
    if part == "dashboard":
        return ask_web(cluster.dashboard or DashboardConfig(), "/_stcore/health")
    if "ZBANK_PORT" in os.environ:
        return ask_actor(cluster, part, f"tcp://127.0.0.1:{os.environ['ZBANK_PORT']}")
    raise InvalidConfig(f"ZBANK_PART is {part!r}: it is coordinator, rest, dashboard, or a branch of {cluster.path}")


def ask_actor(cluster: ClusterConfig, name: str, bind: str) -> str:
    """Say Hello to an actor, by its own key: no other secret is here.

    Its loop answers, and by a key that is not a client's the answer is `forbidden`: that is a good one.
    """
    host, port = parse_endpoint(bind)
    folder = find_folder(None, os.environ)
    pair = None if folder is None else Keys(folder, name, cluster=cluster.name).pair
    near = "127.0.0.1" if host in EVERYWHERE else host
    dealer = make_dealer(zmq.Context.instance(), f"tcp://{near}:{port}", pair, "" if pair is None else pair.public)
    try:
        hello = encode_batch([(1, Hello(PROTOCOL_VERSION, cluster.name, CLIENT, "health"))])
        if not dealer.poll(LIMIT_S * 1000, zmq.POLLOUT):
            raise TimeoutError("nobody takes a connection")
        dealer.send(hello)
        if not dealer.poll(LIMIT_S * 1000):
            raise TimeoutError("no answer")
        ((_, answer),) = decode_batch(dealer.recv())
    finally:
        dealer.close(linger=0)
    if isinstance(answer, Welcome):
        return f"{answer.role} {answer.name} answers, epoch {answer.epoch}"
    if isinstance(answer, Fault) and answer.code == "forbidden":
        return "it answers"
    raise InvalidConfig(f"it answers {answer}")


def ask_web(section: RestConfig | DashboardConfig, path: str) -> str:
    """GET from a web server in this container."""
    host = "127.0.0.1" if section.host in EVERYWHERE else section.host
    connection = http.client.HTTPConnection(host, section.port, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.client.OK:
        raise InvalidConfig(f"{path} answers {status}")
    return "it answers"


if __name__ == "__main__":
    sys.exit(main())
