"""What is in doubt, as an operator sees it: a coordinator that stands still with promises in its hands."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import streamlit as st
from streamlit import config

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.load import ClusterLoad
from tests.acceptance.rest import Rest
from tests.acceptance.test_crash import stop_with_a_lasting_doubt
from tests.ui.test_pages import page, read

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Cluster, Rest]]:
    """A bank under load whose coordinator was stopped in the middle, and its bridge."""
    bank = Cluster(tmp_path)
    try:
        bank.start_all()
        rest = Rest(bank)
        st.cache_resource.clear()
        config.set_option("server.address", "127.0.0.1")
        os.environ["ZBANK_REST_URL"] = f"http://127.0.0.1:{rest.port}"
        with closing(ClusterLoad(bank, 1)) as load:
            stop_with_a_lasting_doubt(bank, load)
        yield bank, rest
        rest.close()
    finally:
        os.environ.pop("ZBANK_REST_URL", None)
        bank.close()


def test_it_is_listed_asked_about_and_settles(stopped: tuple[Cluster, Rest]) -> None:
    bank, rest = stopped
    test = page("operations")
    text = read(test)
    assert "without a known decision" in text
    assert "coordinator does not answer" in text
    ask = next(button for button in test.button if str(button.key).startswith("ask-"))
    ask.click().run()
    assert not test.exception
    (told,) = test.info
    assert "asks coordinator" in told.value
    see = next(button for button in test.button if str(button.key).startswith("see-"))
    txn = str(see.key).removeprefix("see-")
    id = next(one["transfer"] for one in rest.get("/v1/in-doubt").json["in_doubt"] if one["txn"] == txn)
    pending = read(page("transfers", id=id))
    assert "The timeline comes with the decision." in pending
    assert "looks again every second" in pending
    bank.send_signal("coordinator", signal.SIGCONT)
    wait_until(lambda: rest.get("/v1/in-doubt").json["in_doubt"] == [], what="nothing in doubt")
    st.cache_resource.clear()
    assert "Nothing is in doubt." in read(page("operations"))
