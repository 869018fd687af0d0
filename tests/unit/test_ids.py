"""Ids: fresh ones are ordered by time, keys always give the same id, and mistyped ids are not taken for keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.errors import InvalidInput
from zbank.ids import ID_BYTES, MAX_KEY_CHARS, format_id, id_from_key, id_from_text, new_id, parse_id

TEXT = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_fresh_ids_differ_and_are_in_order() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert {len(value) for value in ids} == {ID_BYTES}
    assert {value[6] >> 4 for value in ids} == {7}  # the version of RFC 9562


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_ids_round_trip_through_text(value: bytes) -> None:
    assert parse_id(format_id(value)) == value
    assert parse_id(value.hex()) == value
    assert parse_id(format_id(value).upper()) == value
    assert id_from_text(format_id(value)) == value


@pytest.mark.parametrize("text", ["", "x", TEXT[:-1], TEXT + "0", "{" + TEXT + "}", "urn:uuid:" + TEXT, f" {TEXT}"])
def test_texts_that_are_no_ids(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no id: an id looks like"):
        parse_id(text)


def test_a_mistyped_id_is_not_taken_for_a_key() -> None:
    with pytest.raises(InvalidInput):
        id_from_text("g" + TEXT[1:])


def test_a_key_gives_the_same_id_for_ever() -> None:
    # The id is written down here because a change would make the bank forget every key that was ever used.
    assert format_id(id_from_key("order-1")) == format_id(id_from_text("order-1"))
    assert format_id(id_from_key("order-1")) == "53c43b07-6485-51a5-bbf0-6c61542710e2"
    assert id_from_key("order-1") != id_from_key("order-2")


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_keys_of_different_callers_never_meet(key: str, caller: str, other_key: str, other_caller: str) -> None:
    same = (key, caller) == (other_key, other_caller)
    assert (id_from_key(key, caller) == id_from_key(other_key, other_caller)) == same


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_CHARS + 1)])
def test_keys_have_a_length(key: str) -> None:
    with pytest.raises(InvalidInput, match=f"a key has 1 to {MAX_KEY_CHARS} characters, this one has {len(key)}"):
        id_from_key(key)
