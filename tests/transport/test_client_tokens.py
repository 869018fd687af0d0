"""The client that speaks for others, and that makes and revokes tokens."""

from __future__ import annotations

import gc

import pytest

from tests.transport.doors import Answers
from tests.transport.scripted import ScriptedServer, account_info, committed
from tests.unit.protocol_support import id_of
from zbank import Client
from zbank.errors import ClientClosed, InvalidInput, RemoteFault
from zbank.protocol.messages import (
    COORDINATOR,
    AnyMessage,
    Cancel,
    ChangeAccount,
    GetTokens,
    Hello,
    MakeToken,
    OpenAccount,
    Opened,
    TokenInfo,
    TokensPage,
    Transfer,
)
from zbank.transport.client_tokens import secret_digest

# --- on behalf of ------------------------------------------------------------------------------------------------------


def test_it_speaks_for_others_over_one_connection() -> None:
    """Every write says for whom; the client itself still speaks in its own name."""

    def script(_server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        match message:
            case OpenAccount(id=id):
                return [(n, Opened(id, account_info("2001"), False))]
            case ChangeAccount(id=id):
                return [(n, committed(id))]
        return None

    with ScriptedServer("Mumbai", script=script) as mumbai, Client(mumbai.endpoint, name="bridge") as bank:
        asha, bela = bank.on_behalf_of("asha"), bank.on_behalf_of("asha").on_behalf_of("bela")
        for client in (asha, bela, bank):
            client.transfer("Mumbai/1", "Mumbai/2", 1, id="order 7")
            client.cancel("order 7", account="Mumbai/1")
            client.open_account("Mumbai", number="2001")
            client.change_account("Mumbai/1", status="frozen")
        for kind in (Transfer, Cancel, OpenAccount, ChangeAccount):
            sent = [message for message in mumbai.seen if type(message) is kind]
            assert list(dict.fromkeys(getattr(message, "caller", None) for message in sent)) == ["asha", "bela", ""]
        assert len(mumbai.sessions) == 1
        assert mumbai.different(Hello) == 1
        with pytest.raises(InvalidInput, match="at most 64"):
            bank.on_behalf_of("x" * 65)


@pytest.mark.parametrize("which", [0, 1])
def test_closing_one_closes_both(which: int) -> None:
    with ScriptedServer("Mumbai") as mumbai:
        bank = Client(mumbai.endpoint)
        both = bank, bank.on_behalf_of("asha")
        assert both[1].balance("Mumbai/1") == "100.00"
        both[which].close()
        for client in both:
            with pytest.raises(ClientClosed):
                client.account("Mumbai/1")


def test_the_connection_lives_as_long_as_who_speaks_through_it() -> None:
    with ScriptedServer("Mumbai") as mumbai:
        asha = Client(mumbai.endpoint).on_behalf_of("asha")
        gc.collect()
        assert asha.balance("Mumbai/1") == "100.00"
        asha.close()


# --- tokens ------------------------------------------------------------------------------------------------------------


def test_tokens_are_made_revoked_and_listed(servers: dict[str, ScriptedServer]) -> None:
    """The secret stays here; the list is asked for again only when it has changed."""
    with Client(servers["main"].endpoint) as bank:
        asha = bank.on_behalf_of("asha")
        assert bank.tokens() == (0, [])
        made = asha.make_token("s3cret", holder="shop", role="customer", accounts=["Mumbai/1"], id="shop token")
        assert (made.made_by, made.secret_digest, made.accounts) == ("asha", secret_digest("s3cret"), ("Mumbai/1",))
        assert asha.make_token("s3cret", holder="shop", role="customer", accounts=["Mumbai/1"], id="shop token") == made
        with pytest.raises(RemoteFault) as conflict:
            bank.make_token("s3cret", holder="shop", role="customer", accounts=["Mumbai/1"], id="shop token")
        assert conflict.value.remote_code == "idempotency_conflict"
        found = bank.tokens()
        assert found is not None
        version, listed = found
        assert listed == [made]
        assert bank.tokens(version) is None
        revoked = bank.revoke_token("shop token")
        assert revoked.revoked_us
        assert bank.tokens(version) == (version + 1, [revoked])
        with pytest.raises(RemoteFault) as unknown:
            bank.revoke_token("another")
        assert unknown.value.remote_code == "token_not_found"
        assert all("s3cret" not in repr(message) for message in servers["main"].seen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"holder": ""},
        {"holder": "x" * 65},
        {"role": ""},
        {"role": "x" * 17},
        {"accounts": ["Mumbai"]},
        {"accounts": "Mumbai/1"},
        {"accounts": ["Mumbai/1"] * 21},
        {"expires_us": -1},
        {"expires_us": 2**63},
    ],
)
def test_what_no_message_can_say_is_not_sent(servers: dict[str, ScriptedServer], wrong: dict[str, object]) -> None:
    """A frame that cannot be read would cost all that is in it."""
    asked: dict[str, object] = {"holder": "shop", "role": "customer", "accounts": ["Mumbai/1"], **wrong}
    with Client(servers["main"].endpoint) as bank, pytest.raises(InvalidInput):
        bank.make_token("secret", **asked)  # type: ignore[arg-type]
    assert servers["main"].count(MakeToken) == 0


def token(n: int) -> TokenInfo:
    return TokenInfo(id_of(n), "asha", "teller", (), bytes(32), 1, "", 0, 0)


def test_tokens_that_change_while_they_are_read_are_read_again() -> None:
    """Never half of one version and half of another."""
    pages = [
        TokensPage(5, (token(1),), 3),
        TokensPage(6, (token(2),), 0),
        TokensPage(6, (token(3),), 4),
        TokensPage(6, (token(4),), 0),
    ]

    told: dict[int, TokensPage] = {}  #: by the request's number: it may come again when its answer is late
    asked: dict[int, GetTokens] = {}

    def script(_server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, GetTokens):
            return None
        asked[n] = message
        told[n] = told.get(n) or pages.pop(0)
        return [(n, told[n])]

    with ScriptedServer("main", role=COORDINATOR, script=script) as main, Client(main.endpoint) as bank:
        assert bank.tokens(4) == (6, [token(3), token(4)])
        assert list(asked.values()) == [GetTokens(4, 0), GetTokens(-1, 3), GetTokens(4, 0), GetTokens(-1, 4)]
