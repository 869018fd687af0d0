"""Tokens at the coordinator: made, revoked, listed, kept (DESIGN §1: they are records of its journal)."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.protocol_support import (
    CUSTOMER,
    SECOND_US,
    CoordinatorDesk,
    branch_desk,
    coordinator_desk,
    from_branch,
    id_of,
    legs_of,
    of_kind,
    prepare,
    register,
    transfer,
    txn_of,
    yes,
)
from zbank.protocol import tokens
from zbank.protocol.codec import MAX_FRAME_BYTES, encode_batch
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import CONFLICTING_ID
from zbank.protocol.messages import (
    Abort,
    AnyMessage,
    Fault,
    GetTokens,
    Inquiry,
    MakeToken,
    Outcome,
    Prepare,
    RevokeToken,
    TokenInfo,
    TokensPage,
)
from zbank.protocol.records import TokenMade, TokenRevoked


def make(
    n: int, *, caller: str = "ops", holder: str = "asha", role: str = "teller", accounts: tuple[str, ...] = ()
) -> MakeToken:
    """The n-th token."""
    return MakeToken(id_of(n), caller, holder, role, accounts, sha256(b"%d" % n).digest(), 0)


def revoke(n: int, caller: str = "ops") -> RevokeToken:
    return RevokeToken(id_of(n), caller)


def info(answer: AnyMessage) -> TokenInfo:
    assert isinstance(answer, TokenInfo)
    return answer


def code_of(answer: AnyMessage) -> str:
    assert isinstance(answer, Fault)
    return answer.code


def page(desk: CoordinatorDesk, known_version: int = -1, after: int = 0) -> TokensPage:
    answer = desk.ask(GetTokens(known_version, after))
    assert isinstance(answer, TokensPage)
    return answer


def all_tokens(desk: CoordinatorDesk) -> list[TokenInfo]:
    """Page by page."""
    found: list[TokenInfo] = []
    after = 0
    while True:
        one = page(desk, after=after)
        found += one.tokens
        after = one.next
        if not after:
            return found


def test_a_token_is_one_record_and_is_listed() -> None:
    """Who made it is the caller; the answer, the record and the list say the same."""
    desk = coordinator_desk()
    message = make(1, role="customer", accounts=("Mumbai/1001", "Delhi/1"))
    made = info(desk.ask(message))
    record = desk.last
    assert isinstance(record, TokenMade)
    assert (record.caller, record.holder, record.secret_digest) == ("ops", "asha", message.secret_digest)
    assert (made.made_by, made.made_us, made.revoked_us) == ("ops", desk.clock.now().wall_us, 0)
    assert page(desk) == TokensPage(len(desk.lines), (made,), 0)


def test_who_gives_no_name_makes_it_in_the_connections_own() -> None:
    desk = coordinator_desk()
    (effect,) = desk.send(make(1, caller=""), CUSTOMER._replace(caller="teller 7"), 1)
    assert info(effect.message).made_by == "teller 7"


def test_the_same_again_is_the_same_token() -> None:
    """One record, one answer, also when it was revoked meanwhile: it does not come back as good."""
    desk = coordinator_desk()
    made = info(desk.ask(make(1)))
    rows = len(desk.lines)
    desk.clock.advance(SECOND_US)
    assert desk.ask(make(1)) == made
    assert len(desk.lines) == rows
    revoked = info(desk.ask(revoke(1)))
    assert desk.ask(make(1)) == revoked
    assert revoked.revoked_us == desk.clock.now().wall_us


@pytest.mark.parametrize(
    "other",
    [
        make(1, caller="somebody else"),
        make(1, holder="bela"),
        make(1, role="operator"),
        make(1, role="customer", accounts=("Mumbai/1001",)),
        replace(make(1), expires_us=1),
        replace(make(1), secret_digest=bytes(32)),
    ],
)
def test_another_token_under_its_id(other: MakeToken) -> None:
    """T6: refused, and nothing is recorded."""
    desk = coordinator_desk()
    made = info(desk.ask(make(1)))
    rows = len(desk.lines)
    assert desk.ask(other) == CONFLICTING_ID
    assert len(desk.lines) == rows
    assert page(desk).tokens == (made,)


def test_revoked_is_for_good_and_may_be_asked_again() -> None:
    """The first time is kept, whoever asks again; and it stands so in the list."""
    desk = coordinator_desk()
    made = info(desk.ask(make(1)))
    desk.clock.advance(SECOND_US)
    revoked = info(desk.ask(revoke(1)))
    assert isinstance(desk.last, TokenRevoked)
    assert revoked == replace(made, revoked_us=desk.clock.now().wall_us)
    rows = len(desk.lines)
    desk.clock.advance(SECOND_US)
    assert desk.ask(revoke(1, "somebody else")) == revoked
    assert len(desk.lines) == rows
    assert page(desk).tokens == (revoked,)


def test_made_and_revoked_in_one_batch() -> None:
    """T1: each message sees those before it."""
    desk = coordinator_desk()
    effects = desk.turn([(CUSTOMER, 1, make(1)), (CUSTOMER, 2, revoke(1)), (CUSTOMER, 3, make(1))])
    assert [bool(info(effect.message).revoked_us) for effect in effects] == [False, True, True]


def test_an_unknown_token() -> None:
    desk = coordinator_desk()
    rows = len(desk.lines)
    assert code_of(desk.ask(revoke(1))) == "token_not_found"
    assert len(desk.lines) == rows


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (make(1, role="king"), "is no role"),
        (make(1, holder="a\nb"), "cannot be printed"),
        (make(1, role="customer"), "names the accounts"),
        (make(1, role="teller", accounts=("Mumbai/1001",)), "name none"),
        (make(1, role="customer", accounts=("Mumbai",)), "no account"),
        (make(1, role="customer", accounts=("Mumbai/1001", "9/../x")), "no branch name"),
    ],
)
def test_what_no_token_can_be(message: MakeToken, says: str) -> None:
    """Nothing is recorded, and the id is free for a sound one."""
    desk = coordinator_desk()
    answer = desk.ask(message)
    assert code_of(answer) == "malformed"
    assert isinstance(answer, Fault)
    assert says in answer.detail
    assert page(desk).tokens == ()
    assert info(desk.ask(make(1))).id == id_of(1)


@pytest.mark.parametrize("role", tokens.ROLES)
def test_every_role_can_be_given(role: str) -> None:
    accounts = ("Mumbai/1001",) if role == tokens.CUSTOMER else ()
    assert info(coordinator_desk().ask(make(1, role=role, accounts=accounts))).role == role


def test_a_secret_is_for_one_token() -> None:
    """Also when the one that has it was revoked: who kept the secret must not get in by another token."""
    desk = coordinator_desk()
    first = make(1)
    desk.ask(first)
    again = replace(make(2), secret_digest=first.secret_digest)
    assert code_of(desk.ask(again)) == "malformed"
    desk.ask(revoke(1))
    assert code_of(desk.ask(again)) == "malformed"


def test_a_full_book_gives_way_to_the_longest_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 3)
    desk = coordinator_desk()
    for n in (1, 2, 3):
        desk.ask(make(n))
    assert code_of(desk.ask(make(4))) == "limit_exceeded"
    for n in (3, 1):
        desk.clock.advance(SECOND_US)
        desk.ask(revoke(n))
    assert info(desk.ask(make(4))).id == id_of(4)
    assert [token.id for token in page(desk).tokens] == [id_of(1), id_of(2), id_of(4)]
    assert info(desk.ask(make(5))).id == id_of(5)
    assert [token.id for token in page(desk).tokens] == [id_of(2), id_of(4), id_of(5)]
    assert code_of(desk.ask(make(6))) == "limit_exceeded"


def test_a_token_that_was_forgotten_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """T6: a late duplicate of what made it would have it good again, after it was revoked."""
    monkeypatch.setattr(tokens, "MAX_TOKENS", 1)
    desk = coordinator_desk()
    desk.turn([(CUSTOMER, 1, make(1)), (CUSTOMER, 2, revoke(1)), (CUSTOMER, 3, make(2))])
    assert desk.ask(make(1)) == CONFLICTING_ID
    desk.ask(revoke(2))
    assert desk.restarted().ask(make(1)) == CONFLICTING_ID


def test_an_id_stands_for_a_token_or_for_a_transfer() -> None:
    """T6: whichever comes first; one that is not decided yet counts."""
    desk = coordinator_desk().joined()
    desk.ask(make(1))
    assert desk.ask(transfer(1, legs_of(Mumbai_1001=-5, Delhi_1=5))) == CONFLICTING_ID
    paid = transfer(2, legs_of(Mumbai_1001=-5, Delhi_1=5))
    asked = [message for _, message in of_kind(Prepare, desk.send(paid, n=1))]
    assert desk.ask(make(2)) == CONFLICTING_ID
    desk.turn([yes(asked[0], branch) for branch in ("Mumbai", "Delhi")])
    assert desk.ask(make(2)) == CONFLICTING_ID
    assert desk.restarted().ask(make(2)) == CONFLICTING_ID


def test_pages_and_versions() -> None:
    """Pages are in the order the tokens were made; whoever has the newest version gets none."""
    desk = coordinator_desk()
    assert page(desk) == page(desk, known_version=0) == TokensPage(0, (), 0)
    count = 2 * tokens.PAGE_TOKENS
    for n in range(count):
        desk.ask(make(n))
    first = page(desk)
    second = page(desk, after=first.next)
    assert [len(one.tokens) for one in (first, second)] == [tokens.PAGE_TOKENS] * 2
    assert (bool(first.next), second.next) == (True, 0)
    assert [token.id for token in (*first.tokens, *second.tokens)] == [id_of(n) for n in range(count)]
    assert page(desk, known_version=first.version) == TokensPage(first.version, (), 0)
    desk.ask(revoke(7))
    later = page(desk, known_version=first.version)
    assert later.version > first.version
    assert later.tokens[7].revoked_us
    assert page(desk, after=first.next).version == later.version


def test_the_largest_page_fits_a_frame() -> None:
    """Whatever its tokens hold."""
    desk = coordinator_desk()
    name = "B" * 32 + "/" + "9" * 34
    for n in range(tokens.PAGE_TOKENS + 1):
        long = make(
            n, caller="\N{SNOWMAN}" * 64, holder="\N{GRINNING FACE}" * 64, role="customer", accounts=(name,) * 20
        )
        info(desk.ask(long))
    first = page(desk)
    assert len(first.tokens) == tokens.PAGE_TOKENS
    assert len(encode_batch([(1, first)])) < MAX_FRAME_BYTES


WORK = st.lists(st.tuples(st.sampled_from(("make", "revoke", "time")), st.integers(1, 7)), max_size=40)


@given(work=WORK)
def test_a_restart_is_the_fold(work: list[tuple[str, int]]) -> None:
    """T4: what is posted, and what is replayed from the first row, answer as the process did that made it; and a token
    that was told revoked is never good again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "MAX_TOKENS", 4)
        desk = coordinator_desk()
        revoked: set[bytes] = set()
        for act, n in work:
            desk.clock.advance(SECOND_US)
            if act == "time":
                continue
            answer = desk.ask(make(n) if act == "make" else revoke(n))
            if isinstance(answer, TokenInfo) and answer.revoked_us:
                revoked.add(answer.id)
            assert not isinstance(answer, TokenInfo) or bool(answer.revoked_us) == (answer.id in revoked)
        posted = CoordinatorState("coordinator")
        state = desk.state
        posted.restore(state.posting().meta, state.seq, state.epoch, state.at_us, ())
        found, version = all_tokens(desk), page(desk).version
        assert (list(posted.tokens.by_id.values()), posted.tokens.version, posted.tokens.digests) == (
            list(state.tokens.by_id.values()),
            state.tokens.version,
            state.tokens.digests,
        )
        again = desk.restarted()
        assert (all_tokens(again), page(again).version) == (found, version)
        assert len(found) <= 4
        assert {token.id for token in found if not token.revoked_us}.isdisjoint(revoked)


def test_a_coordinator_that_is_behind_answers_nothing_of_tokens() -> None:
    """P11: its data ends before what branches know of it, so a token that was revoked may be good here."""
    desk = coordinator_desk()
    desk.ask(make(1))
    desk.send(register("Delhi", coordinator_epoch=9), from_branch("Delhi"))
    rows = len(desk.lines)
    for message in (make(1), make(2), revoke(1), GetTokens(-1, 0)):
        assert code_of(desk.ask(message)) == "out_of_office"
    assert len(desk.lines) == rows


def test_a_branch_has_none() -> None:
    desk = branch_desk()
    for message in (make(1), revoke(1), GetTokens(-1, 0)):
        assert code_of(desk.ask(message)) == "not_for_me"


def test_a_token_is_no_decision() -> None:
    """P5: an inquiry about a txn of its id is answered as if there were no token."""
    desk = coordinator_desk().joined()
    desk.ask(make(1))
    lost = prepare(txn_of(5), transfer(1, legs_of(Mumbai_1001=-5, Delhi_1=5)))
    (effect,) = desk.send(Inquiry(lost.txn, id_of(1)), from_branch("Delhi"))
    assert effect.message == Abort(lost.txn, id_of(1))
    assert of_kind(Outcome, desk.tick(SECOND_US)) == []
