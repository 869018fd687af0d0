"""Where a client's requests go: pure knowledge of who answers where. No sockets, no clock (DESIGN §5, "Routing").

A client knows one address, its contact. A coordinator there hands out the directory of branches. A branch there is
worked with alone; its coordinator is asked only when something concerns other branches.
"""

from __future__ import annotations

from collections.abc import Sequence

from zbank.errors import RemoteFault, Unreachable, ZbankError
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    REPLICA,
    BranchInfo,
    Directory,
    Fault,
    ReplicaInfo,
    RetiredInfo,
    Welcome,
)
from zbank.transport.client_request import REPLICA_OF, THE_CONTACT, THE_COORDINATOR

A_COORDINATOR = "the coordinator"


class Routes:
    """The contact's Welcome and the latest directory."""

    def __init__(self, places: Sequence[str]) -> None:
        """`places`: where the contact may be. Of several each is the coordinator's, or that of a replica which can take its
        place."""
        self.places = tuple(places)
        self.endpoint = places[0]  #: the contact's
        self.replicas_at: set[str] = set()  #: of the places: those where a replica answers, which does not lead
        self.refusals: dict[str, Fault] = {}  #: by place of several: why there is no session with who is there
        self.contact: Welcome | None = None  #: None until it has answered
        self.directory: dict[str, BranchInfo] = {}
        self.replicas: tuple[ReplicaInfo, ...] = ()  #: as the directory names them
        self.retired: dict[str, RetiredInfo] = {}  #: branches that have left for good
        self.as_of_us = -1  #: when the directory in hand was asked for; -1 = none yet
        self.names: dict[str, str] = {}  #: branch that answered Hello, by endpoint
        self._at_replicas: set[str] = set()  #: endpoints where a replica did
        self.currencies: dict[str, str] = {}  #: by branch; replaced, never changed: other threads read it

    @property
    def has_several(self) -> bool:
        """The contact may be at more than one place."""
        return len(self.places) > 1

    def chooses(self, endpoint: str, welcome: Welcome) -> bool:
        """Whether it is worked with who answers at one of several places: no replica, and of two coordinators the one with the
        higher epoch. The other one's place was taken; it may still run, and not know."""
        self.refusals.pop(endpoint, None)
        if welcome.role == REPLICA:
            self.replicas_at.add(endpoint)
            if endpoint == self.endpoint:
                self.contact = None
            return False
        self.replicas_at.discard(endpoint)
        if endpoint != self.endpoint:
            if self.contact is not None and welcome.epoch <= self.contact.epoch:
                return False
            self.endpoint, self.contact = endpoint, None
        return True

    @property
    def coordinator_endpoint(self) -> str:
        """Where the coordinator is; "" while that is not known, or when the contact is a branch that knows none."""
        if self.contact is None:
            return ""
        return self.endpoint if self.contact.role == COORDINATOR else self.contact.coordinator

    @property
    def lone_branch(self) -> str:
        """The contact's name when it is a branch; "" else."""
        return "" if self.contact is None or self.contact.role != BRANCH else self.contact.name

    def find(self, target: str, since_us: int) -> str | None:
        """The endpoint for a target. None = not known yet: meet the contact, or ask for the directory, and try again.

        A directory asked for before `since_us` may lack a branch or name an old endpoint; a newer one is believed.
        Raises Unreachable or RemoteFault when there is nowhere to go.
        """
        if self.contact is None:  # what the last directory said of a branch holds
            info = self.directory.get(target)
            return info.endpoint if info is not None and self.names.get(info.endpoint, target) == target else None
        if target == THE_CONTACT or target == self.lone_branch:
            return self.endpoint
        coordinator = self.coordinator_endpoint
        if not coordinator:
            raise self._no_coordinator(target.removeprefix(REPLICA_OF))
        if target == THE_COORDINATOR:
            return coordinator
        fresh = self.as_of_us >= since_us
        if target.startswith(REPLICA_OF):
            return self._find_replica(target.removeprefix(REPLICA_OF), fresh=fresh)
        info = self.directory.get(target)
        if info is None:
            if fresh:
                raise self._no_such_branch(target)
            return None
        name = self.names.get(info.endpoint, target)
        if name == target:
            return info.endpoint
        if fresh and info.endpoint not in self._at_replicas:  # else it was promoted, and has to hear of it yet
            raise RemoteFault(
                "not_here",
                f"at {info.endpoint} answers {name}, not {target}, although the directory of the coordinator at "
                f"{coordinator} says so: restart {target}, or ask again in a moment",
            )
        return None

    def _find_replica(self, branch: str, *, fresh: bool) -> str | None:
        """The one that lagged least when the directory was told."""
        found = [info for info in self.replicas if info.of == branch]
        if found:
            return min(found, key=lambda info: info.lag_us).endpoint
        if fresh and branch not in self.directory:
            raise self._no_such_branch(branch)
        if fresh:
            raise RemoteFault("replica_not_found", f"branch {branch} has no replica: ask the branch itself")
        return None

    def currency_of(self, branch: str) -> str:
        """The currency of a branch, by the directory or its Welcome; "" when not known."""
        return self.currencies.get(branch, "")

    def meet(self, endpoint: str, welcome: Welcome) -> bool:
        """Who answers at an endpoint. True when that is news that changes where requests go."""
        name = A_COORDINATOR if welcome.role == COORDINATOR else welcome.name
        expected = {info.name for info in self.directory.values() if info.endpoint == endpoint}
        leads = endpoint in self._at_replicas and welcome.role != REPLICA
        changed = leads or self.names.get(endpoint, name) != name or bool(expected and name not in expected)
        self.names[endpoint] = name
        (self._at_replicas.add if welcome.role == REPLICA else self._at_replicas.discard)(endpoint)
        if endpoint == self.endpoint:
            old = self.contact
            changed = old is None or (old.role, old.name, old.coordinator) != (
                welcome.role,
                welcome.name,
                welcome.coordinator,
            )
            self.contact = welcome
        if welcome.currency:
            self.currencies = {**self.currencies, welcome.name: welcome.currency}
        return changed

    def forget(self, endpoint: str) -> None:
        """What answers there is to be asked anew."""
        self.names.pop(endpoint, None)

    def learn(self, directory: Directory, asked_us: int) -> None:
        """Take over a directory that was asked for at `asked_us`."""
        self.directory = {info.name: info for info in directory.branches}
        self.replicas = directory.replicas
        self.retired = {info.name: info for info in directory.retired}
        self.as_of_us = max(self.as_of_us, asked_us)
        self.currencies = {**self.currencies, **{info.name: info.currency for info in directory.branches}}

    def endpoints(self) -> set[str]:
        """All endpoints that requests may go to."""
        found = {*self.places, self.coordinator_endpoint} | {info.endpoint for info in self.directory.values()}
        return (found | {info.endpoint for info in self.replicas}) - {""}

    def role_at(self, endpoint: str) -> tuple[str, str]:
        """Role and name of who should be at an endpoint, as far as that is known ("" = it is not)."""
        if self.has_several and endpoint in self.places:  # a coordinator, or a replica of it: that changes
            return "", ""
        if self.contact is not None and endpoint == self.coordinator_endpoint:
            return COORDINATOR, ""
        name = next((info.name for info in self.directory.values() if info.endpoint == endpoint), "")
        replica = next((info.name for info in self.replicas if info.endpoint == endpoint), "")
        return (BRANCH, name) if name else (REPLICA, replica) if replica else ("", "")

    def known_as(self, endpoint: str) -> str:
        """What is, or should be, at an endpoint, in words: "branch Mumbai", "the coordinator"."""
        if endpoint == self.coordinator_endpoint:
            return A_COORDINATOR
        name = self.names.get(endpoint) or next((i.name for i in self.directory.values() if i.endpoint == endpoint), "")
        if name == A_COORDINATOR or (self.has_several and endpoint in self.places):
            return A_COORDINATOR
        if any(info.endpoint == endpoint for info in self.replicas):
            return "a replica"
        return f"branch {name}" if name else "a zbank coordinator or branch"

    def shown(self, endpoint: str) -> str:
        """An endpoint in words: with the others at which the same was looked for, and what was found there."""
        if not self.has_several or endpoint not in self.places:
            return endpoint
        silent = [place for place in self.places if place not in self.replicas_at] or list(self.places)
        found = [place for place in self.places if place in self.replicas_at and place not in silent]
        note = f" (at {' and '.join(found)} is a replica of it, which was not promoted)" if found else ""
        return " or ".join(silent) + note

    def _no_such_branch(self, target: str) -> ZbankError:
        retired = self.retired.get(target)
        if retired is not None:
            detail = f"branch {target} was retired; while it runs, {retired.endpoint} tells its history"
            return RemoteFault("branch_retired", detail)
        known = ", ".join(sorted(self.directory)) or "none yet"
        return RemoteFault("branch_not_found", f"there is no branch {target} in this cluster: it has {known}")

    def _no_coordinator(self, target: str) -> ZbankError:
        if target == THE_COORDINATOR:
            what = "this needs the coordinator"
        else:
            what = f"only the coordinator knows where branch {target} is"
        return Unreachable(
            f"{what}, and branch {self.lone_branch} at {self.endpoint} knows none: give the coordinator's address"
        )
