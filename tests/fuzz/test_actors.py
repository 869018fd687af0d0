"""Well-typed nonsense of every kind, from everybody who may say it: no actor falls over it, and its books stay right."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.play import play
from zbank.protocol.messages import BRANCH, COORDINATOR

usual = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@usual
@given(data=st.data())
def test_a_branch_bears_whatever_is_said_to_it(data: st.DataObject) -> None:
    play(data.draw, BRANCH)


@usual
@given(data=st.data())
def test_a_coordinator_bears_whatever_is_said_to_it(data: st.DataObject) -> None:
    play(data.draw, COORDINATOR)
