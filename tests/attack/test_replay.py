"""What was recorded on the way changes nothing when it is played again, whole, cut, twice, or to somebody else."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.cluster import NAMED_PORTS, Cluster, free_ports, wait_until
from tests.attack.intruder import Intruder, books_at_rest, met, watching_money
from tests.attack.recorder import FalseServer, Recorder, play_back
from tests.unit.protocol_support import id_of
from zbank import Client
from zbank.domain.legs import Leg
from zbank.errors import NoAnswer, Unreachable
from zbank.protocol.codec import encode_batch
from zbank.protocol.messages import CLIENT, PROTOCOL_VERSION, Hello, Outcome, Transfer

TURNED = "with bits turned"


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def spoilt(tape: bytes) -> dict[str, bytes]:
    """A recording, and what an attacker makes of it."""
    chance = random.Random(7)
    flipped = bytearray(tape)
    for _ in range(20):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    half = len(tape) // 2
    return {
        "whole": tape,
        "again": tape,
        "twice over": tape + tape,
        "the second half behind the greeting": tape[:64] + tape[half:],
        "without its middle": tape[: half - 50] + tape[half + 50 :],
        "cut": tape[: len(tape) - 7],
        TURNED: bytes(flipped),
    }


@pytest.mark.parametrize("secure", [True, False])
def test_a_clients_session_played_again_moves_no_money(tmp_path: Path, secure: bool) -> None:
    """By keys the recording is of no use at all; without, the ids in it are known already. But for one whose bits were turned:
    that is another payment, which without keys anybody may make, and the books are exact all the same."""
    cluster = Cluster(tmp_path, secure=secure)
    try:
        cluster.start_all()
        mumbai = port_of(cluster.endpoints["Mumbai"])
        with closing(Recorder(mumbai)) as recorder:
            with Client(recorder.endpoint, keys=cluster.keys or "") as bank:
                met(bank)
                for n in range(10):
                    assert bank.transfer("Mumbai/1001", "Mumbai/1002", "7.00", id=f"paid-{n}").status == "committed"
                    assert bank.deposit("Mumbai/1001", "3.00", id=f"in-{n}").status == "committed"
            tapes = [bytes(to_server) for to_server, _ in recorder.tapes if len(to_server) > 1_000]
        assert tapes
        if secure:
            assert not any(word in tape for tape in tapes for word in (b"transfer", b"1001", b"INR", b"Mumbai"))
        played = [(name, recording) for tape in tapes for name, recording in spoilt(tape).items()]
        with watching_money(cluster):
            for name, recording in played:
                if secure or name != TURNED:
                    said = play_back(mumbai, recording)
                    assert not secure or b"committed" not in said, name
        if not secure:
            for name, recording in played:
                if name == TURNED:
                    play_back(mumbai, recording)
            books_at_rest(cluster)
        assert "Traceback" not in cluster.output("Mumbai")
    finally:
        cluster.close()


def test_frames_of_another_connection_are_of_no_use(bank: Cluster) -> None:
    """An insider puts what he recorded of somebody else's frames behind his own handshake."""
    mumbai = port_of(bank.endpoints["Mumbai"])
    with closing(Recorder(mumbai)) as recorder:
        with Client(recorder.endpoint, keys=bank.keys or "") as client:
            assert met(client).transfer("Mumbai/1001", "Mumbai/1002", "7.00").status == "committed"
            (theirs,) = [bytes(tape) for tape, _ in recorder.tapes if len(tape) > 700]
            others = len(recorder.tapes)
        with Client(recorder.endpoint, keys=bank.keys or "", key="watch") as insider:
            met(insider).account("Mumbai/1001")
            own = max((bytes(tape) for tape, _ in recorder.tapes[others:]), key=len)
    with watching_money(bank):
        for at in (64, 400, 600, len(own)):
            play_back(mumbai, own[:at] + theirs[at:])


def test_a_false_server_that_says_what_the_true_one_said_is_not_believed(bank: Cluster) -> None:
    with closing(Recorder(port_of(bank.endpoints["Mumbai"]))) as recorder:
        with Client(recorder.endpoint, keys=bank.keys or "") as client:
            assert met(client).transfer("Mumbai/1001", "Mumbai/1002", "1.00", id="believed").status == "committed"
        said = max((bytes(tape) for _, tape in recorder.tapes), key=len)
    with closing(FalseServer(0, said)) as false:
        with Client(f"tcp://127.0.0.1:{false.port}", keys=bank.keys or "", timeout_s=2) as client:
            with pytest.raises((Unreachable, NoAnswer)):
                client.balance("Mumbai/1001")
            with pytest.raises(Unreachable):
                client.transfer("Mumbai/1001", "Mumbai/1002", "1.00", id="believed")
        wait_until(lambda: false.callers > 0, what="a call")


def test_two_phase_commit_played_again_decides_nothing(tmp_path: Path) -> None:
    """All between a branch and its coordinator is recorded: votes and acks are played to the coordinator again, and
    Prepare and decisions to the branch, by one who has taken over the coordinator's address."""
    cluster = Cluster(tmp_path, secure=True)
    bind = free_ports(NAMED_PORTS)  # the feed is behind it
    told = port_of(cluster.endpoint)
    text = cluster.config.read_text()
    line = f'endpoint = "{cluster.endpoint}"\n'
    cluster.config.write_text(text.replace(line, f'{line}bind = "tcp://127.0.0.1:{bind}"\n', 1))
    try:
        with closing(Recorder(bind, told)) as recorder:
            cluster.start_all()
            with cluster.client() as bank:
                for n in range(20):
                    assert bank.transfer("Mumbai/1001", "Delhi/1002", "5.00", id=f"two-phase-{n}").status == "committed"
            to_coordinator = [bytes(tape) for tape, _ in recorder.tapes if len(tape) > 2_000]
            to_branches = [bytes(tape) for _, tape in recorder.tapes if len(tape) > 2_000]
            assert len(to_coordinator) >= 2
            with watching_money(cluster):
                for tape in to_coordinator:
                    for recording in list(spoilt(tape).values())[:4]:
                        play_back(bind, recording)
            before = books_at_rest(cluster)
        cluster.kill("coordinator")
        for tape in to_branches:
            with closing(FalseServer(told, tape)) as false:
                wait_until(lambda false=false: false.callers >= 4, what="calls of both branches")  # type: ignore[misc]
        with closing(Recorder(bind, told)):
            cluster.start("coordinator")
            cluster.wait_registered()
            after = books_at_rest(cluster)
            for name in before:
                if name != "rows of coordinator":  # it has taken office again, and so has a row more
                    rows = 1 if name.startswith("rows") else 0  # and the branches have noted that
                    assert after[name] == (before[name] + rows if rows else before[name]), name
            with cluster.client() as bank:
                assert bank.transfer("Mumbai/1001", "Delhi/1002", "5.00", id="two-phase-0").replayed
                assert bank.transfer("Mumbai/1001", "Delhi/1002", "5.00").status == "committed"
    finally:
        cluster.close()


def test_a_request_that_an_attacker_repeats_is_told_its_first_outcome(bank: Cluster) -> None:
    """An insider may send again what he sent: the same id, the same content, the same answer."""
    transfer = Transfer(id_of(700), (Leg("Mumbai", "1001", -9_00), Leg("Mumbai", "1002", 9_00)), "INR")
    with Intruder(bank, "Mumbai", "till-4") as teller:
        teller.greeted()
        first = teller.ask(transfer)
        assert isinstance(first, Outcome)
        with watching_money(bank):
            body = encode_batch([(n, transfer) for n in range(1, 500)])
            for _ in range(4):
                teller.socket.send(body)
            told: list[object] = []
            while len(told) < 4 * 499:
                heard = teller.hear()
                assert heard
                told += heard
            assert {(one.status, one.replayed) for one in told if isinstance(one, Outcome)} == {("committed", True)}
        assert teller.refused(Transfer(id_of(700), transfer.legs, "INR", "another memo")) == "idempotency_conflict"


def test_an_old_version_is_not_spoken(bank: Cluster) -> None:
    with Intruder(bank, "Mumbai", "till-4") as teller:
        for version in (0, 1, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1):
            assert teller.refused(Hello(version, "", CLIENT, "")) == "wrong_version"
