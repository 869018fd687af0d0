"""Who does not belong does not get in; who gets in does what its key is for, and nothing else."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from tests.attack.intruder import Intruder, met, watching_money
from tests.unit.protocol_support import id_of, register
from zbank.domain.legs import Leg
from zbank.errors import RemoteFault
from zbank.ids import id_from_key
from zbank.protocol import messages
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    Abort,
    Ack,
    AnyMessage,
    Beat,
    BranchInfo,
    Commit,
    Fault,
    GetAccount,
    GetDirectory,
    GetEntries,
    GetStatus,
    GetTransfer,
    Hello,
    Inquiry,
    ListAccounts,
    Outcome,
    Position,
    Prepare,
    Register,
    StatusInfo,
    Transfer,
    TransferInfo,
    Txn,
    Vote,
)
from zbank.transport.access import TABLE
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import new_pair

ALL = ("coordinator", "Mumbai", "Delhi")
PEOPLE = {"asha": "client", "till-4": "teller", "watch": "auditor", "operator": "operator", "rest": "bridge"}
TXN = Txn("coordinator", 1, 1)


def pays(n: int, source: str = "Mumbai/1001", to: str = "Mumbai/1002", amount_minor: int = 5_00) -> Transfer:
    (giver, given), (taker, taken) = source.split("/"), to.split("/")
    return Transfer(id_of(n), (Leg(giver, given, -amount_minor), Leg(taker, taken, amount_minor)), "INR")


AMONG_ACTORS: tuple[AnyMessage, ...] = (
    Prepare(TXN, pays(1), b"x", ""),
    Commit(TXN, id_of(1), 5),
    Abort(TXN, id_of(1)),
    Vote(TXN, id_of(1), "yes", 1, 1),
    Ack(TXN, id_of(1), 1),
    Position(1, 1, bytes(32), 0),
    Inquiry(TXN, id_of(1)),
    register("Mumbai"),
    messages.Registered("coordinator", 9, ()),
    messages.Forward("", pays(1)),
    messages.StillPending(TXN, id_of(1)),
    Outcome(id_of(1), "committed", None, 1, 0, False, True),
    Fault("fence_lost", "leave"),
)


# --- getting in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ALL)
def test_without_a_listed_key_nobody_gets_in(bank: Cluster, at: str) -> None:
    assert bank.keys is not None
    own = Keys(bank.keys, at).pair.public
    other = next(Keys(bank.keys, name).pair.public for name in ALL if name != at)
    cases: dict[str, tuple[Any, str | None]] = {
        "NULL mechanism": (None, ""),
        "a key that nobody listed": (new_pair(), own),
        "a listed key, and another server's": ("operator", other),
    }
    for what, (key, server) in cases.items():
        with Intruder(bank, at, key, server) as intruder:
            assert intruder.stays_out(), what


def test_the_public_key_of_somebody_is_of_no_use(bank: Cluster) -> None:
    """The list is not secret: with the operator's public key, and another secret, the handshake fails."""
    assert bank.keys is not None
    forged = new_pair()._replace(public=Keys(bank.keys, "operator").pair.public)
    with Intruder(bank, "Mumbai", forged, Keys(bank.keys, "Mumbai").pair.public) as intruder:
        assert intruder.stays_out()


@pytest.mark.parametrize("at", ALL)
def test_plain_and_null_are_not_spoken(bank: Cluster, at: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        plain = context.socket(zmq.DEALER)
        plain.plain_username, plain.plain_password = b"operator", b"operator"
        plain.setsockopt(zmq.IMMEDIATE, 1)
        plain.connect(bank.endpoints[at])
        assert not plain.poll(400, zmq.POLLOUT)
    finally:
        context.destroy(linger=0)


def test_a_client_without_keys_is_told_so_in_words(bank: Cluster) -> None:
    done = bank.cli("status")
    assert done.returncode == 0
    lone = bank.keys
    bank.keys = None
    try:
        bare = bank.cli("status", "--timeout", "2")
    finally:
        bank.keys = lone
    assert bare.returncode == 1
    assert "and your keys, where the bank has some (ZBANK_KEYS)" in bare.stderr


def test_an_open_port_without_keys_is_refused_with_the_command_that_makes_them(bank: Cluster) -> None:
    lone, bank.keys = bank.keys, None
    try:
        for command in (("branch", "--name", "Pune"), ("coordinator",)):
            done = bank.cli(*command, "--host", "0.0.0.0", "--port", "1", "--data", "elsewhere")
            assert done.returncode == 2
            assert "keys_needed" in done.stderr
            assert "`zbank keys init --config FILE`" in done.stderr
    finally:
        bank.keys = lone


# --- what a key is for ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PEOPLE])
@pytest.mark.parametrize("at", ALL)
def test_no_person_can_say_what_actors_say(bank: Cluster, at: str, name: str) -> None:
    """A client's key that sends Decision, a teller's that votes, an operator's that registers."""
    with watching_money(bank), Intruder(bank, at, name) as intruder:
        intruder.greeted()
        for message in AMONG_ACTORS:
            assert intruder.refused(message) == "forbidden", message


@pytest.mark.parametrize("name", [*PEOPLE])
@pytest.mark.parametrize("at", ["coordinator", "Mumbai"])
def test_each_role_may_what_the_table_says(bank: Cluster, at: str, name: str) -> None:
    """Told apart by the refusal alone: what may be sent is answered by whatever the actor thinks of it."""
    role, column = PEOPLE[name], 0 if at == "Mumbai" else 1
    account = "1001"
    every: list[AnyMessage] = [
        pays(900, amount_minor=1) if at == "Mumbai" else pays(901, to="Delhi/1002", amount_minor=1),
        messages.Cancel(id_of(902)),
        messages.OpenAccount(id_of(903), "1001", "", "", 0),
        messages.ChangeAccount(id_of(904), "9999", "frozen", -1),
        GetAccount(account),
        GetEntries(account, True, "", 1),
        GetTransfer(id_of(905)),
        GetDirectory(),
        ListAccounts("", 1),
        messages.ListTransfers("", "", False, 0, 9, "", 1),
        GetStatus(),
        messages.GetEvents(-1, 1),
        messages.GetFigures(),
        messages.InquireNow(TXN, id_of(906)),
        messages.GetTokens(-1, 0),
        messages.GetActs(1),
        messages.MakeToken(id_of(907), "", "x", "king", (), bytes(32), 0),
        messages.RevokeToken(id_of(908), ""),
        messages.Promote("Mumbai", "nobody", id_of(909)),
        messages.NameAcks("Lima", "nobody", id_of(909)),
        messages.RetireBranch("Lima"),
    ]
    assert {type(message) for message in every} == set(get_args(messages.Request)) - {Hello}
    with Intruder(bank, at, name) as intruder:
        intruder.greeted()
        for message in every:
            answer = intruder.ask(message)
            is_refused = isinstance(answer, Fault) and answer.code == "forbidden"
            assert is_refused is (role not in TABLE[type(message)][column]), (message, answer)


def test_a_client_has_its_own_accounts_alone(bank: Cluster) -> None:
    with Intruder(bank, "Mumbai", "asha") as asha:
        asha.greeted()
        assert asha.refused(GetAccount("1002")) == "forbidden"
        assert asha.refused(GetEntries("1002", True, "", 5)) == "forbidden"
        assert asha.refused(pays(920, "Mumbai/1002", "Mumbai/1001")) == "forbidden"
        assert asha.refused(pays(921, "Mumbai/cash", "Mumbai/1001")) == "forbidden"
        assert asha.refused(pays(922, "Mumbai/clearing", "Mumbai/1001")) == "forbidden"
        mixed = (Leg("Mumbai", "1001", -1), Leg("Mumbai", "1002", -1), Leg("Delhi", "1001", 2))
        assert asha.refused(Transfer(id_of(923), mixed, "INR")) == "forbidden"
    with Intruder(bank, "Delhi", "asha") as asha:
        asha.greeted()
        assert asha.refused(GetAccount("1001")) == "forbidden", "the same number at another branch"
    with Intruder(bank, "coordinator", "asha") as asha:
        asha.greeted()
        assert asha.refused(pays(924, "Delhi/1001", "Mumbai/1001")) == "forbidden"


def test_of_others_transfers_a_client_hears_nothing(bank: Cluster) -> None:
    with bank.client() as operator:
        theirs = operator.transfer("Mumbai/1002", "Delhi/1001", "1.00", id="theirs")
        hers = operator.transfer("Mumbai/1002", "Mumbai/1001", "1.00", id="hers")
        assert {theirs.status, hers.status} == {"committed"}
    for at in ("Mumbai", "Delhi", "coordinator"):
        with Intruder(bank, at, "asha") as asha:
            asha.greeted()
            told = asha.ask(GetTransfer(theirs_id := id_from_key("theirs")))
            assert told == TransferInfo(theirs_id, "unknown", None, (), "", "", "", 0, 0, None, (), ())
    with Intruder(bank, "Mumbai", "asha") as asha:
        asha.greeted()
        assert asha.ask(GetTransfer(id_from_key("hers"))).status == "committed"


def test_nobody_asks_in_anothers_name_but_a_bridge(bank: Cluster) -> None:
    stolen = Transfer(id_of(930), pays(930).legs, "INR", caller="ravi")
    for name in ("asha", "till-4", "operator"):
        with Intruder(bank, "Mumbai", name) as intruder:
            intruder.greeted()
            assert intruder.refused(stolen) == "forbidden"
    with Intruder(bank, "Mumbai", "rest") as bridge:
        bridge.greeted()
        assert bridge.ask(stolen).status == "committed"
    with Intruder(bank, "Mumbai", "till-4") as teller:
        teller.greeted()
        assert teller.refused(pays(930)) == "idempotency_conflict", "the id is ravi's"


def test_what_a_hello_says_counts_for_nothing_beside_the_key(bank: Cluster) -> None:
    for at in ALL:
        for role, name in ((BRANCH, "Mumbai"), (BRANCH, "Delhi"), (COORDINATOR, "coordinator"), ("operator", "")):
            with Intruder(bank, at, "till-4") as intruder:
                answer = intruder.greet(role, name)
                assert isinstance(answer, Fault)
                assert answer.code in ("forbidden", "not_for_me")
                assert intruder.refused(GetStatus()) == "hello_first"


def test_a_stolen_routing_id_gives_nothing_of_whose_it_was(bank: Cluster) -> None:
    """A peer may choose its routing id. The session that stands under it belongs to the key that said Hello."""
    chosen = b"\x01chosen by the peer"
    with Intruder(bank, "Mumbai", "till-4", routing_id=chosen) as teller:
        teller.greeted()
        assert isinstance(teller.ask(GetStatus()), StatusInfo)
    with watching_money(bank), Intruder(bank, "Mumbai", "asha", routing_id=chosen) as asha:
        assert asha.refused(pays(940, "Mumbai/1002", "Mumbai/1001")) == "hello_first"
        assert asha.refused(GetStatus()) == "hello_first"
        asha.greeted()
        assert asha.refused(GetStatus()) == "forbidden"


def test_an_actors_key_is_no_persons(bank: Cluster) -> None:
    for name in (*ALL, "stand-in"):
        with Intruder(bank, "Mumbai", name) as intruder:
            assert isinstance(intruder.greet(CLIENT), Fault)
    assert bank.keys is not None
    with bank.client(key="stand-in") as bare, pytest.raises(RemoteFault, match="does not speak for a client"):
        bare.status()


def test_a_branchs_key_speaks_for_that_branch_alone(bank: Cluster) -> None:
    """Delhi's key votes and acks for Mumbai, registers as Mumbai, and asks Mumbai as another branch."""
    with watching_money(bank):
        with Intruder(bank, "coordinator", "Delhi") as delhi:
            assert delhi.greet(BRANCH, "Mumbai").code == "forbidden"
            delhi.greeted(BRANCH, "Delhi")
            info = BranchInfo("Mumbai", "tcp://127.0.0.1:1", "INR", id_of(1), 99, True)
            assert delhi.refused(Register(info, 0, 0)) in ("malformed", "foreign_store")
            assert delhi.refused(Vote(TXN, id_of(1), "yes", 1, 1)) == "hello_first", "it stands for nobody yet"
        with Intruder(bank, "Mumbai", "Delhi") as delhi:
            assert delhi.greet(BRANCH, "Pune").code == "forbidden"
            delhi.greeted(BRANCH, "Delhi")
            for message in AMONG_ACTORS:
                if not isinstance(message, Inquiry):
                    assert delhi.refused(message) == "forbidden"
            assert delhi.refused(GetStatus()) == "forbidden"


def test_the_coordinators_key_opens_no_door(bank: Cluster) -> None:
    """It sends Prepare and decisions over the connections that branches make to it, and calls nobody."""
    for at in ("Mumbai", "Delhi"):
        with Intruder(bank, at, "coordinator") as intruder:
            assert isinstance(intruder.greet(COORDINATOR, "coordinator"), Fault)
            for message in AMONG_ACTORS:
                assert intruder.refused(message) == "hello_first"


def test_a_false_coordinator_is_not_listened_to(own_bank: Cluster) -> None:
    """Whoever takes the coordinator's address over has no secret of it: no branch talks to him."""
    own_bank.kill("coordinator")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        false = context.socket(zmq.ROUTER)
        pair = new_pair()
        false.curve_server, false.curve_secretkey = True, pair.secret.encode()
        wait_until(lambda: _binds(false, own_bank.endpoint), what="the address")
        assert not false.poll(1_500), "nobody has said a word"
    finally:
        context.destroy(linger=0)
    with own_bank.client("Mumbai") as mumbai:
        assert met(mumbai).transfer("Mumbai/1001", "Mumbai/1002", "1.00").status == "committed"


def _binds(socket: zmq.Socket[bytes], endpoint: str) -> bool:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        return False
    return True


def test_beats_of_strangers_keep_nobody_alive(bank: Cluster) -> None:
    with Intruder(bank, "coordinator", "Delhi") as delhi:
        delhi.greeted(BRANCH, "Delhi")
        assert delhi.refused(Beat(False)) == "hello_first"
