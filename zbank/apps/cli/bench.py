"""`zbank bench`: how fast is this bank, and are its books right afterwards?"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import emit_json, show_facts
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, Bank, bank_options, complain, json_option
from zbank.errors import InvalidInput

if TYPE_CHECKING:
    from zbank.apps.cli.bench_books import Check
    from zbank.apps.cli.bench_load import Record, Route
    from zbank.protocol.messages import BranchInfo

LOCAL = "local"
TRANSFER = "transfer"
DEPOSIT = "deposit"
MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of the load generator."""

    work: str
    in_flight: int
    seconds: float
    clients: int
    accounts: int  #: at each branch
    batch: int  #: 0 = single requests


@click.command()
@click.option(
    "--work",
    type=click.Choice((LOCAL, TRANSFER, DEPOSIT)),
    default=LOCAL,
    show_default=True,
    help="Transfers within a branch, between branches, or deposits.",
)
@click.option("--in-flight", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Of each client.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 86_400), default=10.0, show_default=True, help="How long to measure."
)
@click.option("--clients", type=click.IntRange(1, 1000), default=1, show_default=True, help="Connections of their own.")
@click.option("--accounts", type=click.IntRange(2, 1_000_000), default=100, show_default=True, help="At each branch.")
@click.option("--branches", metavar="A,B", help="Which; default: the first one, or two for --work transfer.")
@click.option("--batch", type=click.IntRange(1, 4096), help="Send batches of so many transfers, each as one request.")
@bank_options
@json_option
def bench(bank: Bank, work: str, branches: str | None, batch: int | None, as_json: bool, **numbers: Any) -> int:
    """Load a running bank, measure, then check its books from outside. Exits with 1 when they are off.

    It opens accounts of its own (bench-…) with money from the branches' cash; they stay.

    \b
    Examples:
      zbank bench --work local --in-flight 64 --seconds 10
      zbank bench --work transfer --in-flight 256 --branches Mumbai,Delhi
      zbank bench --in-flight 1 --clients 32
    """
    from zbank.apps.cli.bench_books import check_books, open_accounts
    from zbank.apps.cli.bench_load import run_load

    plan = Plan(work, batch=batch or 0, **numbers)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(bank.connect()) for _ in range(plan.clients)]
        everywhere = clients[0].branches()
        chosen = choose_branches(everywhere, branches, work)
        by_branch = open_accounts(clients[0], chosen, plan.accounts)
        routes = _routes(work, by_branch)
        for client in clients:
            client.account(by_branch[0][0])  # connected before the clock starts
        records = run_load(clients, routes, plan.in_flight, plan.seconds, plan.batch, bank.timeout_s)
        accounts = [name for names in by_branch for name in names]
        checks = check_books(clients[0], everywhere, accounts, routes, records)
    report = _report(plan, [branch.name for branch in chosen], records, checks)
    if as_json:
        emit_json(report)
    else:
        show_facts(_facts(report))
    if report["books"]["ok"]:
        return EXIT_DONE
    return complain(
        "failed: the books are off: " + "; ".join(check.name for check in checks if not check.ok), EXIT_REFUSED
    )


def choose_branches(everywhere: Sequence[BranchInfo], named: str | None, work: str) -> list[BranchInfo]:
    """The branches to load. Raises InvalidInput when there are too few, or of different currencies."""
    by_name = {branch.name: branch for branch in everywhere}
    needed = 2 if work == TRANSFER else 1
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise InvalidInput(f"there is no branch {', '.join(unknown)}: this bank has {', '.join(by_name) or 'none'}")
        chosen = [by_name[name] for name in dict.fromkeys(names)]
    else:
        live = [branch for branch in everywhere if branch.up]
        chosen = [branch for branch in live if branch.currency == live[0].currency][:needed]
    if len(chosen) < needed:
        raise InvalidInput(f"--work {work} needs {needed} running branch{'es of one currency' if needed > 1 else ''}")
    if work == TRANSFER and len({branch.currency for branch in chosen}) > 1:
        raise InvalidInput("--work transfer needs branches of one currency")
    return chosen


def _routes(work: str, by_branch: list[list[str]]) -> list[Route]:
    from zbank.apps.cli.bench_load import make_routes
    from zbank.domain.legs import CASH

    if work == DEPOSIT:
        return [(f"{name.split('/')[0]}/{CASH}", name) for names in by_branch for name in names]
    return make_routes(by_branch, work == TRANSFER, random.Random(1))


def _report(plan: Plan, branches: list[str], records: Sequence[Record], checks: Sequence[Check]) -> dict[str, Any]:
    from zbank.apps.cli.bench_load import percentile

    latencies = sorted(latency for record in records for latency in record.latencies_s)
    outcomes: Counter[str] = sum((record.outcomes for record in records), Counter())
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        "work": plan.work,
        "branches": branches,
        "clients": plan.clients,
        "in_flight": plan.in_flight,
        "batch": plan.batch,
        "accounts": plan.accounts,
        "seconds": plan.seconds,
        "measured": len(latencies),
        "per_second": round(len(latencies) / plan.seconds, 1),
        "latency_ms": {name: round(percentile(latencies, share) * MILLISECONDS, 3) for name, share in shares.items()},
        "outcomes": dict(outcomes),
        "books": {
            "ok": all(check.ok for check in checks),
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        },
    }


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    batch = f", batches of {report['batch']}" if report["batch"] else ""
    load = f"{report['clients']} client{'s' if report['clients'] > 1 else ''} × {report['in_flight']} in flight{batch}"
    latency = "  ".join(f"{name} {value:.2f} ms" for name, value in report["latency_ms"].items())
    facts = [
        ("work", f"{report['work']} at {', '.join(report['branches'])}, {load}, {report['seconds']:g} s"),
        ("throughput", f"{report['per_second']:,.0f} a second"),
        ("latency", latency),
        ("outcomes", ", ".join(f"{count:,} {name}" for name, count in sorted(report["outcomes"].items()))),
        ("books", "right" if report["books"]["ok"] else "OFF"),
    ]
    return facts + [
        ("", f"{'ok ' if c['ok'] else 'OFF'}  {c['name']}: {c['detail']}") for c in report["books"]["checks"]
    ]
