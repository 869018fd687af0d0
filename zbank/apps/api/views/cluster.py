"""The cluster: who is up, the branches, what is in doubt."""

from __future__ import annotations

from typing import Any

from zbank import __version__
from zbank.apps.api.access import INQUIRE, MAY, SEE, SEE_BANK
from zbank.apps.api.endpoint import Answer, Ask, Reply, Routes
from zbank.apps.api.problems import Problem
from zbank.apps.api.shown_watch import (
    BranchesShown,
    BranchShown,
    CallerShown,
    ClusterShown,
    FiguresShown,
    InDoubtsShown,
    InquiredShown,
)
from zbank.clock import format_time
from zbank.ids import format_id
from zbank.protocol.gate import who_acknowledges
from zbank.protocol.messages import BRANCH, BranchInfo, FiguresInfo, StatusInfo
from zbank.transport.views import ActorDown, amount_text

routes = Routes("cluster")


@routes.add("GET", "/v1/cluster", act=SEE_BANK, answers=[Answer(200, "Who is up, and how they do.", ClusterShown)])
def show_cluster(ask: Ask) -> Reply:
    """The coordinator and all branches, asked now."""
    actors = ask.bank.status()
    currencies = ask.bank.currencies()
    names = [actor.cluster for actor in actors if isinstance(actor, StatusInfo)]
    return Reply(
        {
            "name": names[0] if names else "",
            "version": __version__,
            "tokens_demanded": not ask.bridge.tokens.is_open,
            "actors": [_actor_json(actor, currencies) for actor in actors],
        }
    )


@routes.add(
    "GET", "/v1/figures", act=SEE_BANK, answers=[Answer(200, "What each actor counts, asked now.", FiguresShown)]
)
def show_figures(ask: Ask) -> Reply:
    """What the actors count since they started: transfers, journal rows, how long forcing and deciding takes."""
    return Reply({"actors": [_figures_json(actor) for actor in ask.bank.figures()]})


@routes.add("GET", "/v1/me", act=SEE, answers=[Answer(200, "Who asks.", CallerShown)])
def show_caller(ask: Ask) -> Reply:
    """Who you are to this bridge, by your token, and what you may do."""
    principal = ask.principal
    return Reply(
        {
            "holder": principal.caller,
            "role": principal.role,
            "accounts": sorted(principal.accounts),
            "may": sorted(MAY[principal.role] - ask.bridge.out_of_reach),
            "tokens_demanded": not ask.bridge.tokens.is_open,
        }
    )


@routes.add("GET", "/v1/branches", act=SEE, answers=[Answer(200, "All branches, by name.", BranchesShown)])
def list_branches(ask: Ask) -> Reply:
    """The branches, as the coordinator knows them. Those that were closed for good stand apart: nothing can be paid there."""
    gone = [
        {"name": info.name, "currency": info.currency, "retired_at": format_time(info.at_us)}
        for info in ask.bank.retired_branches()
    ]
    return Reply({"branches": [_branch_json(info) for info in _branches(ask)], "retired": gone})


@routes.add(
    "GET",
    "/v1/branches/<branch>",
    act=SEE,
    answers=[Answer(200, "The branch.", BranchShown)],
    problems=["branch_not_found"],
)
def show_branch(ask: Ask, branch: str) -> Reply:
    """One branch."""
    found = next((info for info in _branches(ask) if info.name == branch), None)
    if found is None:
        raise Problem("branch_not_found", f"there is no branch {branch}", status=404)
    return Reply(_branch_json(found))


@routes.add(
    "GET", "/v1/in-doubt", act=SEE_BANK, answers=[Answer(200, "What is in doubt, the oldest first.", InDoubtsShown)]
)
def list_in_doubt(ask: Ask) -> Reply:
    """Prepared transfers whose decision a branch does not know (at most 100 of each branch). They settle by themselves."""
    told, missing = ask.bank.in_doubt()
    found = [
        {"txn": str(held.txn), "transfer": format_id(held.id), "branch": branch, "age_s": held.age_us / 1e6}
        for held, branch in told
    ]
    return Reply({"in_doubt": found, "missing": [actor.to_json() for actor in missing]})


@routes.add(
    "POST",
    "/v1/in-doubt/<txn>/inquire",
    act=INQUIRE,
    answers=[Answer(200, "Who asks whom now.", InquiredShown)],
    problems=["not_in_doubt", "invalid_request"],
)
def inquire(ask: Ask, txn: str) -> Reply:
    """Make each branch that is in doubt of a two-phase commit ask now, not when it is time. It guesses nothing."""
    asked, missing = ask.bank.inquire(txn)
    if not asked:
        raise Problem("not_in_doubt", f"no branch that answers is in doubt of {txn}")
    shown = [{"branch": branch, "whom": list(whom)} for branch, whom in asked.items()]
    return Reply({"txn": txn, "asked": shown, "missing": [actor.to_json() for actor in missing]})


def _branches(ask: Ask) -> list[BranchInfo]:
    return ask.bank.branches()


def _branch_json(info: BranchInfo) -> dict[str, Any]:
    shown = {"name": info.name, "currency": info.currency, "endpoint": info.endpoint, "up": info.up}
    return shown | {"synchronous_replica": who_acknowledges(info.acks)}


def _actor_json(actor: StatusInfo | ActorDown, currencies: dict[str, str]) -> dict[str, Any]:
    if isinstance(actor, ActorDown):
        return actor.to_json()
    code = currencies.get(actor.name)
    is_branch = actor.role == BRANCH
    return {
        "role": actor.role,
        "name": actor.name,
        "up": True,
        "epoch": actor.epoch,
        "version": actor.version,
        "uptime_s": actor.uptime_us / 1e6,
        "journal_rows": actor.seq,
        "journal_bytes": actor.journal_bytes,
        "unposted_rows": actor.unposted,
        "in_flight": actor.in_flight,
        "in_doubt": len(actor.in_doubt),
        "accounts": actor.accounts if is_branch else None,
        "currency": code if is_branch else None,
        "clearing": amount_text(actor.clearing_minor, code) if is_branch and code else None,
        "customers": amount_text(actor.customers_minor, code) if is_branch and code else None,
        "alarms": list(actor.alarms),
        "synchronous_replica": who_acknowledges(actor.acks),
        "stopped": actor.stopped,
    }


def _figures_json(actor: FiguresInfo | ActorDown) -> dict[str, Any]:
    if isinstance(actor, ActorDown):
        return actor.to_json()
    return {
        "role": actor.role,
        "name": actor.name or actor.role,
        "up": True,
        "counts": {one.name: one.count for one in actor.counts},
        "histograms": [
            {
                "name": told.name,
                "bounds_ms": [bound_us / 1000 for bound_us in told.bounds_us],
                "counts": list(told.counts),
                "total_ms": told.total_us / 1000,
            }
            for told in actor.histograms
        ],
    }
