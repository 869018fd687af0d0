"""The replicas, and how one of them takes the place of its branch."""

from __future__ import annotations

from typing import Any

from zbank.apps.api.access import PROMOTE, SEE
from zbank.apps.api.endpoint import Answer, Ask, Reply, Routes
from zbank.apps.api.given import PromotionGiven
from zbank.apps.api.problems import FORBIDDEN, Problem
from zbank.apps.api.shown_watch import ReplicaShown, ReplicasShown
from zbank.ids import format_id, parse_id
from zbank.protocol.gate import keeps_all
from zbank.protocol.messages import NEVER_US, ReplicaInfo
from zbank.transport.views import lag_seconds

routes = Routes("cluster")


@routes.add("GET", "/v1/replicas", act=SEE, answers=[Answer(200, "All replicas, by name.", ReplicasShown)])
def list_replicas(ask: Ask) -> Reply:
    """The replicas, as they last told the coordinator: what they have, and how far behind they were."""
    directory = ask.bank.directory()
    words = directory.words()
    shown = [_replica_json(info, is_synchronous=keeps_all(words.get(info.of), info)) for info in directory.replicas]
    return Reply({"replicas": shown})


@routes.add(
    "POST",
    "/v1/replicas/<replica>/promotion",
    act=PROMOTE,
    body=PromotionGiven,
    answers=[Answer(200, "It is recorded: this replica, as it was seen last, takes over now.", ReplicaShown)],
    problems=["invalid_request", "replica_not_found", "branch_not_found", "branch_up", "cannot_lead", "out_of_office"],
)
def promote_replica(ask: Ask, replica: str) -> Reply:
    """Let a replica take the place of its branch, which is lost. For good: what the branch did after its last row is void.

    With the `synchronous` replica nothing is lost that was acknowledged, and the branch's old process can acknowledge nothing
    any more, wherever it runs. From then on the branch stands on one disk alone, until an operator names another replica by
    the command `zbank acks` (there is no such request here).

    What is lost with any other one: payments within the branch, deposits, withdrawals and new accounts after its `position`,
    also those that customers were told of. Payments between branches are not lost. The branch's old process must be stopped,
    and must not come back by itself on a machine that the coordinator cannot reach: there it would go on with payments of
    its own.

    `confirm` has to be the words `promote` and the branch's name; `instance` is what `GET /v1/replicas` told of the
    replica, so that nothing else is promoted than what was seen. Asking again with the same `instance` is safe: it is
    done once, and answered alike. The branch is `up` again (`GET /v1/branches`) within seconds.

    Where the bank has keys, only an operator's own key promotes (`zbank promote`), and the bridge is refused: `forbidden`.
    """
    given: PromotionGiven = ask.body
    words = f"promote {given.branch}"
    if given.confirm != words:
        raise Problem("invalid_request", f"nothing was done: to go on, `confirm` has to be {words!r}")
    if PROMOTE in ask.bridge.out_of_reach:
        detail = "where the bank has keys, only an operator's own key promotes: zbank promote"
        raise Problem(FORBIDDEN, f"nothing was done: {detail} {given.branch} --replica {replica}")
    # No look at the list before: a replica that was told to take over has left it, and asking again has to be safe.
    seen = ReplicaInfo(replica, given.branch, "", parse_id(given.instance), 0, 0, 0, NEVER_US)
    return Reply(_replica_json(ask.bank.promote(given.branch, seen), is_synchronous=False))


def _replica_json(info: ReplicaInfo, *, is_synchronous: bool) -> dict[str, Any]:
    at = {"epoch": info.epoch, "position": info.seq, "behind": info.behind, "lag_s": lag_seconds(info.lag_us)}
    whose = {"name": info.name, "branch": info.of, "endpoint": info.endpoint, "instance": format_id(info.instance)}
    return whose | {"can_lead": info.can_lead, "synchronous": is_synchronous} | at
