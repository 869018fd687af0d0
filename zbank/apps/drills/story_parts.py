"""What several drills have in common: the plain way of a transfer, in few words."""

from __future__ import annotations

from zbank.apps.drills.script import CLIENT, COORDINATOR, HOME, OTHER, AnyStep, Ask, Send

ASK = Ask(
    text="The client asks for {amount} from {payer} to {payee}. It made the id of the transfer before it sent anything.",
)


def prepared(branch: str, text: str = "") -> AnyStep:
    """A branch promises."""
    return Send(message="prepare", source=COORDINATOR, target=branch, forced="prepared", text=text)


def votes_yes(branch: str, text: str = "") -> AnyStep:
    """Its promise reaches the coordinator."""
    return Send(message="vote", source=branch, target=COORDINATOR, expect="yes", text=text)


def commits(branch: str, text: str = "") -> AnyStep:
    """The decision reaches a branch."""
    return Send(message="commit", source=COORDINATOR, target=branch, forced="committed", text=text)


def acks(branch: str, text: str = "") -> AnyStep:
    """The coordinator learns that a branch is done."""
    return Send(message="ack", source=branch, target=COORDINATOR, text=text)


def told(expect: str, text: str, rule: str = "") -> AnyStep:
    """The client learns something."""
    return Send(message="outcome", source=COORDINATOR, target=CLIENT, expect=expect, text=text, rule=rule)


DECIDED = Send(
    message="vote",
    source=OTHER,
    target=COORDINATOR,
    expect="yes",
    forced="decided",
    text="The last yes. The coordinator forces its decision to disk: from this ▣ on the transfer is done.",
    rule="P5",
)
BOTH_PROMISE: tuple[AnyStep, ...] = (
    ASK,
    prepared(HOME, "{home} holds the money and writes down its promise, on disk, before it says yes."),
    votes_yes(HOME),
    prepared(OTHER),
)
