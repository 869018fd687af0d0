"""Acts of those in charge, as they are asked for and told: tokens made and revoked, keys listed and ended, branches come,
moved and retired."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.protocol.wire import Count, Limit, Message, Name, Text

MAX_ACTS = 1_000  #: in memory; older ones are in the journal alone

TOKEN_MADE = "token_made"
TOKEN_REVOKED = "token_revoked"
KEY_LISTED = "key_listed"
KEY_ENDED = "key_ended"
BRANCH_PROMOTED = "branch_promoted"
BRANCH_JOINED = "branch_joined"
BRANCH_MOVED = "branch_moved"
BRANCH_LEFT = "branch_retired"
ACKS_NAMED = "acks_named"
COORDINATOR_PROMOTED = "coordinator_promoted"


class GetActs(Message, frozen=True, tag="acts?"):
    """To the coordinator: the latest acts of those in charge. Answered by ActsPage."""

    limit: Limit


class ActInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One act."""

    seq: Count  #: of its row in the journal
    at_us: Count
    act: Name  #: one of the names above
    by: Name  #: who did it, as far as that is known; a key is listed by whoever may write the file
    about: Text  #: whose token or key, and which; which branch; which replica of which branch


class ActsPage(Message, frozen=True, tag="acts"):
    """Acts, the newest first."""

    acts: Annotated[tuple[ActInfo, ...], Meta(max_length=MAX_ACTS)]
