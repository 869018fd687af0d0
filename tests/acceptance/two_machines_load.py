"""The load of `zbank chaos` as a program of its own, for a machine that the tests are not on: `-m … ENDPOINT BRANCH…`.

It does what its input says, a line each, and answers each by a line of JSON: `told` gives what its customers know by now,
`judge {ID: LEGS}` stops, compares the bank's books with all that was told, and gives the findings; the ids are of payments
that others made and that were told committed.
"""

from __future__ import annotations

import json
import sys

from zbank import Client
from zbank.apps.chaos.history import Told
from zbank.apps.chaos.load import Load
from zbank.protocol.messages import COMMITTED

SEED = 5
IN_FLIGHT = 64
TIMEOUT_S = 4.0


def main(endpoint: str, *branches: str) -> None:
    """Run until the input ends."""
    with Client(endpoint, timeout_s=TIMEOUT_S) as client:
        load = Load(client, branches, SEED, in_flight=IN_FLIGHT, timeout_s=TIMEOUT_S)
        for line in sys.stdin:
            word, _, rest = line.partition(" ")
            answer = told(load) if word == "told\n" else {"findings": judge(load, json.loads(rest)), **told(load)}
            print(json.dumps(answer), flush=True)


def told(load: Load) -> dict[str, object]:
    """What the customers know."""
    history = load.history
    across = 0
    for id, outcome in list(history.told.items()):
        places = {account.partition("/")[0] for account, _ in history.asked[id]}
        across += outcome.status == COMMITTED and len(places) > 1
    return {"told": len(history.told), "across": across, "faults": dict(history.faults)}


def judge(load: Load, others: dict[str, list[tuple[str, int]]]) -> list[str]:
    """All that is wrong."""
    load.stop()
    for id, legs in others.items():
        load.history.asked[id] = tuple((account, amount) for account, amount in legs)
        load.history.told[id] = Told(COMMITTED, "", 0)
    return load.judge()


if __name__ == "__main__":
    main(*sys.argv[1:])
