"""The part of the Client that is about which branches there are, and on how many disks they stand."""

from __future__ import annotations

from zbank.domain.account import check_branch_name
from zbank.errors import NoAnswer, Refused, RemoteFault
from zbank.protocol.messages import (
    AckedBy,
    BranchRetired,
    Directory,
    GetDirectory,
    GetStatus,
    NameAcks,
    Named,
    Promote,
    Promoting,
    ReplicaInfo,
    RetireBranch,
    RetiredInfo,
    StatusInfo,
)
from zbank.transport.client_base import ClientBase, as_it_is
from zbank.transport.client_request import THE_CONTACT, THE_COORDINATOR, AccountWrite

REFUSALS = frozenset({"branch_not_empty", "branch_in_use"})


class MemberClient(ClientBase):
    """Branches that leave. Those that are there: `Client.branches`."""

    def retire_branch(self, branch: str) -> RetiredInfo:
        """Close an empty branch for good; asking again tells the same. Only an operator may.

        Raises Refused `branch_not_empty` or `branch_in_use`, RemoteFault `branch_not_found` or `branch_unavailable` (it has
        to be connected: only itself can say that it is empty), and NoAnswer when it is not known whether it was closed.
        """
        name = check_branch_name(branch)

        def not_known(reason: str) -> NoAnswer:
            return NoAnswer(f"{reason}: it is not known whether branch {name} was retired; ask again")

        request: AccountWrite[RetiredInfo] = AccountWrite(
            THE_COORDINATOR,
            RetireBranch(name, self._asker.caller),
            self._timeout_us,
            (BranchRetired,),
            _info_of,
            not_known,
        )
        try:
            return self._io.call(request)
        except RemoteFault as error:
            if error.remote_code in REFUSALS:
                raise Refused(error.remote_code, error.detail) from None
            raise

    def name_acks(self, of: str, replica: ReplicaInfo | None) -> AckedBy:
        """From now on nothing leaves branch `of` (or the coordinator, by its name) before this replica has it on its disk;
        None = it stands alone again. Gives the coordinator's word; the branch follows it as soon as it hears of it. Only an
        operator may.

        Raises RemoteFault `branch_not_found`, `replica_not_found`, `diverged` or `foreign_store` (it has a copy of the
        branch's own data), and NoAnswer when it is not known whether it was recorded: ask again.
        """
        name, instance = ("", b"") if replica is None else (replica.name, replica.instance)
        request: AccountWrite[AckedBy] = AccountWrite(
            THE_COORDINATOR,
            NameAcks(of, name, instance, self._asker.caller),
            self._timeout_us,
            (Named,),
            _word_of,
            lambda reason: NoAnswer(f"{reason}: it is not known whether that was recorded; ask again"),
        )
        return self._io.call(request)

    def contact_status(self) -> StatusInfo:
        """How the actor at the client's own address does: also a replica of the coordinator, which no directory names."""
        self._io.check_may_wait()
        answer: StatusInfo = self._ask(THE_CONTACT, GetStatus(), StatusInfo, as_it_is).result()
        return answer

    def promote_contact(self, of: str, instance: bytes) -> ReplicaInfo:
        """Let the coordinator's replica at the client's own address, whose store has this `instance`, take the place of
        coordinator `of`, which must be stopped. An operator's act, for good; it leads within a second.

        Raises RemoteFault (`coordinator_up`, `not_synchronous`, `cannot_lead`, `not_for_me`); NoAnswer: look at it again.
        """
        name = self._contact().name
        request: AccountWrite[ReplicaInfo] = AccountWrite(
            THE_CONTACT,
            Promote(of, name, instance, self._asker.caller),
            self._timeout_us,
            (Promoting,),
            _promoted,
            lambda reason: NoAnswer(f"{reason}: it is not known whether {name} is the coordinator now; look at it again"),
        )
        return self._io.call(request)

    def directory(self) -> Directory:
        """All that the coordinator knows of who is where, as of one moment."""
        self._io.check_may_wait()
        self._contact()
        return self._ask_patiently(THE_COORDINATOR, GetDirectory(), Directory)()

    def retired_branches(self) -> list[RetiredInfo]:
        """The branches that have left for good, the latest last."""
        return list(self.directory().retired)


def _promoted(answer: Promoting) -> ReplicaInfo:
    return answer.info


def _word_of(answer: Named) -> AckedBy:
    return answer.acks


def _info_of(answer: BranchRetired) -> RetiredInfo:
    return answer.info
