"""`python -m examples.berka`: replay a real bank's movements through a real cluster, and compare every balance.

Exit code: 0 all is equal, 1 something is not, 2 wrong usage or no data.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from examples.berka.check import Checked, check
from examples.berka.cluster import LocalCluster
from examples.berka.data import DataMissing, data_directory, read_histories
from examples.berka.mapping import CURRENCY, Opening, Plan, make_plan
from examples.berka.replay import DEFAULT_IN_FLIGHT, Replayed, replay
from zbank import Client
from zbank.errors import ZbankError

OPENERS = 16  #: accounts opened at once
TIMEOUT_S = 20.0  #: of one request
SHOWN_DIFFERENCES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole run; the exit code."""
    options = _options(arguments)
    try:
        histories, unchained = read_histories(data_directory())
        plan = make_plan(histories, options.limit)
        print(
            f"{len(histories)} of {len(histories) + len(unchained)} accounts chain; "
            f"{plan.steps} movements to replay, {plan.steps_between_branches} of them between banks",
            flush=True,
        )
        with _cluster(options, plan) as endpoint, Client(endpoint, timeout_s=TIMEOUT_S) as client:
            print(f"{len(plan.branches)} branches at {endpoint}: {', '.join(plan.branches)}", flush=True)
            open_accounts(client, plan.openings)
            replayed = replay(client, plan.chains, in_flight=options.in_flight, on_progress=_show_progress)
            checked = check(client, plan)
    except DataMissing as error:
        print(f"berka: {error}", file=sys.stderr)
        return 2
    except ZbankError as error:
        print(f"berka: {error}", file=sys.stderr)
        return 1
    return _verdict(plan, replayed, checked)


def open_accounts(client: Client, openings: Sequence[Opening]) -> None:
    """Open every account; one that this replay has opened before stays as it is. Raises Refused, or a fault."""

    def open_one(opening: Opening) -> None:
        client.open_account(
            opening.branch,
            number=opening.number,
            owner=opening.owner,
            overdraft_limit=opening.overdraft_limit,
            currency=CURRENCY,
            id=opening.id,
        )

    with ThreadPoolExecutor(OPENERS) as pool:
        list(pool.map(open_one, openings))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.berka", description=__doc__)
    parser.add_argument("--in-flight", type=_positive, default=DEFAULT_IN_FLIGHT, metavar="N", help="movements at once")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N movements by date")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--endpoint", help="a running, otherwise empty cluster of these nine branches")
    where.add_argument("--keep", type=Path, metavar="DIR", help="keep data and logs here; a second run continues them")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


@contextmanager
def _cluster(options: argparse.Namespace, plan: Plan) -> Iterator[str]:
    """The endpoint of the cluster to use: the one given, or one started for this run and stopped after it."""
    if options.endpoint:
        yield options.endpoint
        return
    with (
        tempfile.TemporaryDirectory(prefix="zbank-berka-") as scratch,
        LocalCluster(options.keep or Path(scratch), plan.branches, CURRENCY) as cluster,
    ):
        yield cluster.endpoint


def _show_progress(so_far: Replayed) -> None:
    rate = so_far.done / so_far.seconds if so_far.seconds else 0.0
    print(f"  {so_far.done:6d} movements in {so_far.seconds:5.1f} s ({rate:,.0f}/s)", flush=True)


def _verdict(plan: Plan, replayed: Replayed, checked: Checked) -> int:
    """Print what came out; the exit code."""
    seconds = max(replayed.seconds, 1e-9)
    print(
        f"replayed {replayed.done} of {plan.steps} movements in {replayed.seconds:.1f} s: "
        f"{replayed.done / seconds:,.0f}/s, of them {replayed.done_between_branches} two-phase commits "
        f"({replayed.done_between_branches / seconds:,.0f}/s); sent again: {replayed.retries}"
    )
    print(
        f"compared {checked.entries} balances on {checked.accounts} accounts, {checked.bank_entries} entries of "
        f"{checked.banks} banks, the sums of {checked.branches} branches and their clearing accounts"
    )
    problems = [*replayed.failures, *checked.differences]
    if not problems:
        print("EQUAL: every balance is the bank's own, every branch sums to zero, all clearing accounts cancel")
        return 0
    for problem in problems[:SHOWN_DIFFERENCES]:
        print(f"  {problem}")
    print(f"NOT EQUAL: {len(problems)} differences, the first {min(len(problems), SHOWN_DIFFERENCES)} are above")
    return 1


def _stop(number: int, _frame: object) -> None:
    """SIGTERM: leave through the context managers, so that no process stays behind."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
