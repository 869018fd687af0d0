"""Acts of those in charge, at the coordinator: tokens, keys, which branches there are, promotions. Its journal has all of them.

The latest stand in memory, to be asked for. A key is listed or ended in a file; the coordinator notes it when it sees it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from zbank.protocol.act_messages import (
    ACKS_NAMED,
    BRANCH_JOINED,
    BRANCH_LEFT,
    BRANCH_MOVED,
    BRANCH_PROMOTED,
    COORDINATOR_PROMOTED,
    KEY_ENDED,
    KEY_LISTED,
    MAX_ACTS,
    TOKEN_MADE,
    TOKEN_REVOKED,
    ActInfo,
    ActsPage,
    GetActs,
)
from zbank.protocol.records import (
    AcksNamed,
    BranchJoined,
    BranchLeft,
    BranchPromoted,
    KeysChanged,
    NotedKey,
    Promoted,
    Record,
    TokenMade,
    TokenRevoked,
)


class ActBook:
    """The part of a coordinator's fold that is about acts. Records alone change it."""

    def __init__(self, acts: Iterable[ActInfo] = (), keys: Iterable[NotedKey] = ()) -> None:
        self.acts: deque[ActInfo] = deque(acts, MAX_ACTS)
        self.keys = {key.public: key for key in keys}  #: that are good, as noted last

    def token_made(self, record: TokenMade, seq: int, at_us: int) -> None:
        """Fold a new token."""
        of = f" of {', '.join(record.accounts)}" if record.accounts else ""
        about = f"token {_shown(record.id)} for {record.holder}, {record.role}{of}"
        self._add(seq, at_us, TOKEN_MADE, record.caller, about)

    def token_revoked(self, record: TokenRevoked, holder: str, seq: int, at_us: int) -> None:
        """Fold the end of a token."""
        self._add(seq, at_us, TOKEN_REVOKED, record.caller, f"token {_shown(record.id)} of {holder}")

    def branch_promoted(self, record: BranchPromoted, seq: int, at_us: int) -> None:
        """Fold a promotion."""
        self._add(seq, at_us, BRANCH_PROMOTED, record.caller, f"replica {record.replica} is branch {record.name} now")

    def acks_named(self, record: AcksNamed, seq: int, at_us: int) -> None:
        """Fold who is a synchronous replica now."""
        who = f"replica {record.replica}, data {record.instance.hex()[-8:]}," if record.replica else "no replica"
        self._add(seq, at_us, ACKS_NAMED, record.by, f"{who} acknowledges what {record.of} does")

    def coordinator_promoted(self, record: Promoted, seq: int, at_us: int) -> None:
        """Fold a coordinator's replica that took its place."""
        about = f"a replica is the coordinator now, after epoch {record.former_epoch}"
        self._add(seq, at_us, COORDINATOR_PROMOTED, record.by, about)

    def keys_changed(self, record: KeysChanged, seq: int, at_us: int) -> None:
        """Fold what was seen in the list of keys."""
        for key in record.ended:
            self.keys.pop(key.public, None)
            self._add(seq, at_us, KEY_ENDED, "", _of_key(key))
        for key in record.listed:
            self.keys[key.public] = key
            self._add(seq, at_us, KEY_LISTED, "", _of_key(key))

    def branch_joined(self, record: BranchJoined, before: BranchJoined | None, seq: int, at_us: int) -> None:
        """Fold a branch that is new, or somewhere else than before."""
        place = f"branch {record.name} at {record.endpoint}"
        if before is None:
            self._add(seq, at_us, BRANCH_JOINED, "", f"{place}, {record.currency}, data {record.instance.hex()[-8:]}")
        else:
            self._add(seq, at_us, BRANCH_MOVED, "", f"{place}, before at {before.endpoint}")

    def branch_left(self, record: BranchLeft, seq: int, at_us: int) -> None:
        """Fold the end of a branch."""
        self._add(seq, at_us, BRANCH_LEFT, record.by, f"branch {record.name}")

    def seen(self, good: Iterable[NotedKey]) -> Record | None:
        """What to record when these keys are good now; None = that is known."""
        now = {key.public: key for key in good}
        listed = tuple(key for public, key in now.items() if self.keys.get(public) != key)
        ended = tuple(key for public, key in self.keys.items() if now.get(public) != key)
        return KeysChanged(listed, ended) if listed or ended else None

    def latest(self, message: GetActs) -> ActsPage:
        """The newest acts."""
        newest = list(self.acts)[-message.limit :]
        return ActsPage(tuple(reversed(newest)))

    def _add(self, seq: int, at_us: int, act: str, by: str, about: str) -> None:
        self.acts.append(ActInfo(seq, at_us, act, by, about[:500]))


def _shown(id: bytes) -> str:
    text = id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _of_key(key: NotedKey) -> str:
    of = f" of {', '.join(key.accounts)}" if key.accounts else ""
    return f"key {key.public} of {key.role} {key.name}{of}"
