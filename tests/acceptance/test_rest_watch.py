"""What the REST bridge shows of the bank: accounts that are searched for, keys, timelines, figures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.cluster import wait_until
from tests.acceptance.rest import Rest


def test_accounts_of_the_whole_bank_are_searched(rest: Rest) -> None:
    for branch in ("Mumbai", "Delhi"):
        for n in range(3):
            opened = rest.post(
                f"/v1/branches/{branch}/accounts", {"owner": f"Zoë {n} 100%", "number": f"find{n}"}, key=f"find-{branch}-{n}"
            )
            assert opened.status == 201
    assert rest.ask("PATCH", "/v1/branches/Delhi/accounts/find1", {"status": "frozen"}, key="find-freeze").status == 200

    def found(query: str) -> list[str]:
        names: list[str] = []
        cursor = ""
        while True:
            told = rest.get(f"/v1/accounts?limit=2&cursor={cursor}&{query}").json
            assert len(told["accounts"]) <= 2
            assert told["missing"] == []
            names += [account["account"] for account in told["accounts"]]
            cursor = told["cursor"] or ""
            if not cursor:
                return names

    all_six = [f"{branch}/find{n}" for branch in ("Delhi", "Mumbai") for n in range(3)]
    assert found("search=zo%C3%AB") == found("search=FIND") == found("search=100%25") == all_six
    assert found("search=FIND&branch=Delhi") == all_six[:3]
    assert found("search=find&status=frozen") == ["Delhi/find1"]
    assert found("search=ind1") == []
    assert {name.partition("/")[0] for name in found("")} == {"Delhi", "Mumbai"}
    page = rest.get("/v1/branches/Delhi/accounts?search=find&status=open").json["accounts"]
    assert [account["number"] for account in page] == ["find0", "find2"]
    assert rest.get("/v1/accounts?branch=Lima").code == "branch_not_found"
    assert rest.get("/v1/accounts?cursor=bm9uZQ").code == "invalid_request"
    assert rest.get("/v1/accounts?status=none").status == 400


def test_what_became_of_a_key(rest: Rest, account: str) -> None:
    paid = rest.pay("1", f"key-{account}", source=account)
    told = rest.get(f"/v1/transfers/by-key?key=key-{account}").json
    assert (told["id"], told["status"]) == (paid.json["id"], "committed")
    assert rest.get("/v1/transfers/by-key?key=never-used").code == "transfer_not_found"
    assert rest.post(f"/v1/transfers/by-key/cancel?key=late-{account}").json["status"] == "aborted"
    late = rest.pay("1", f"late-{account}", source=account)
    assert (late.status, late.code) == (422, "cancelled")
    rest.settle()
    assert rest.post(f"/v1/transfers/by-key/cancel?key=key-{account}").json["status"] == "committed"


def test_the_decision_is_on_disk_between_the_last_vote_and_the_first_ack(rest: Rest, account: str) -> None:
    id = rest.pay("1", f"forced-{account}", source=account).json["id"]

    def timeline() -> list[dict[str, Any]]:
        bars: list[dict[str, Any]] = rest.get(f"/v1/transfers/{id}").json["timeline"]
        return bars

    wait_until(lambda: sum(bar["phase"] == "apply" for bar in timeline()) == 2, what="both acks are noted")
    bars = timeline()
    (decide,) = (bar for bar in bars if bar["phase"] == "decide")
    votes = [bar["end_ms"] for bar in bars if bar["phase"] == "prepare"]
    applies = [bar for bar in bars if bar["phase"] == "apply"]
    assert max(votes) <= decide["start_ms"] < decide["end_ms"]
    assert all(decide["end_ms"] == bar["start_ms"] <= bar["end_ms"] for bar in applies)


def test_the_figures_and_who_asks(rest: Rest) -> None:
    actors = rest.get("/v1/figures").json["actors"]
    assert [(actor["role"], actor["name"], actor["up"]) for actor in actors] == [
        ("coordinator", "coordinator", True),
        ("branch", "Delhi", True),
        ("branch", "Mumbai", True),
    ]
    assert actors[1]["counts"]["turns"] > 0
    assert {one["name"] for one in actors[1]["histograms"]} >= {"force"}
    me = rest.get("/v1/me").json
    assert (me["role"], me["holder"], me["tokens_demanded"]) == ("operator", "", False)
    assert "drill" not in me["may"]
    assert rest.get("/v1/drills").code == "drills_off"
    rest.settle()
    money = {actor["name"]: actor for actor in rest.get("/v1/cluster").json["actors"] if actor["role"] == "branch"}
    listed = rest.get("/v1/branches/Delhi/accounts?limit=1000").json["accounts"]
    own = [float(one["balance"]) for one in listed if one["number"] not in ("cash", "clearing")]
    assert float(money["Delhi"]["customers"]) == pytest.approx(sum(own))
