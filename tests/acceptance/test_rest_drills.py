"""Drills over REST, as a web page plays them: real processes, killed for real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, free_ports, wait_until
from tests.acceptance.rest import Rest, Told
from tests.acceptance.test_launcher import Launcher

LIMIT_S = 60.0

pytestmark = pytest.mark.timeout(240)


class Page(Rest):
    """The bridge that the launcher started."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.secret = ""

    def play(self, name: str, *, step: bool) -> Told:
        return self.post(f"/v1/drills/{name}/play", {"step": step})

    def until(self, *states: str) -> dict[str, Any]:
        """How the play stands when it is in one of these states."""
        found: dict[str, Any] = {}

        def is_there() -> bool:
            found.update(self.get("/v1/drills/play").json)
            return found["state"] in states

        wait_until(is_there, LIMIT_S, f"a play that is {states}")
        return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    cluster = Cluster(tmp_path_factory.mktemp("drills"))
    port = free_ports(1)
    cluster.config.write_text(cluster.config.read_text() + f"\n[rest]\nport = {port}\n")
    launcher = Launcher(cluster, "--drills")
    try:
        launcher.wait_for("Ctrl-C stops everything")
        yield Page(port)
    finally:
        launcher.close()


def test_all_of_them_are_listed_and_one_is_played_to_its_end(page: Page) -> None:
    drills = page.get("/v1/drills").json["drills"]
    assert (drills[0]["name"], len(drills)) == ("all-goes-well", 11)
    assert "drill" in page.get("/v1/me").json["may"]
    assert page.get("/v1/drills/play").code == "drill_not_found"
    assert page.play("all-goes-wrong", step=False).code == "drill_not_found"
    begun = page.play("all-goes-well", step=False)
    assert (begun.status, begun.json["steps"]) == (201, drills[0]["steps"])
    ended = page.until("ended", "failed")
    assert (ended["state"], ended["problem"]) == ("ended", None)
    assert [told["what"] for told in ended["told"]][:2] == ["drill", "step"]
    assert ended["told"][-1]["ok"] is True
    rest = page.get("/v1/drills/play?after=3").json
    assert (rest["told"], rest["next"]) == (ended["told"][3:], ended["next"])


def test_step_by_step_with_a_coordinator_that_is_killed(page: Page) -> None:
    assert page.play("coordinator-dies-after-votes", step=True).status == 201
    told = 0
    for _ in range(40):
        state = page.until("waiting", "ended", "failed")
        assert state["next"] >= told, "nothing is untold"
        told = state["next"]
        if state["state"] != "waiting":
            break
        assert page.play("all-goes-well", step=False).code == "drill_running"
        page.post("/v1/drills/play/next")
    assert (state["state"], state["problem"]) == ("ended", None)
    assert any(mark["kind"] == "crash" for one in state["told"] if one["what"] == "step" for mark in one["marks"])
    assert state["told"][-1]["ok"] is True


def test_ended_half_way_the_bank_goes_on_by_itself(page: Page) -> None:
    assert page.play("coordinator-dies-after-votes", step=True).status == 201
    for _ in range(5):
        page.until("waiting")
        page.post("/v1/drills/play/next")
    page.until("waiting")
    ended = page.post("/v1/drills/play/end").json
    assert ended["state"] == "ended"
    assert "goes on by itself" in ended["problem"]
    assert page.pay("1.00", "after-the-end").status == 201
    assert page.play("all-goes-well", step=False).status == 201
    assert page.until("ended", "failed")["problem"] is None, "the one before left nothing under way"
