"""Answers of several actors about one id, joined to one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zbank.ids import format_id
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    PENDING,
    UNKNOWN,
    ParticipantInfo,
    TransferInfo,
    TransferListed,
    TransfersPage,
)
from zbank.transport.views import TransferResult, TransferView, transfer_view

#: What says more than what. `committed` beats `aborted`: a branch where a txn of the id was voided, or a cancel came too
#: late, may know the id as aborted although the transfer is done elsewhere.
_WEIGHT = {COMMITTED: 3, ABORTED: 2, PENDING: 1, UNKNOWN: 0}


def join_transfers(
    id: bytes, coordinator: TransferInfo | None, branches: Sequence[TransferInfo], silent: Sequence[str]
) -> TransferView:
    """What the coordinator (None = no answer) and the branches know of an id. `silent` names who did not answer."""
    infos = [info for info in (coordinator, *branches) if info is not None]
    best = max(infos, key=_knowledge, default=None)
    if best is None:
        best = TransferInfo(id, UNKNOWN, None, (), "", "", "", 0, 0, None, (), ())
    reason = ""
    if silent:
        reason = f"no answer from {', '.join(silent)}"
    elif best.status == UNKNOWN:
        reason = "no branch and no coordinator knows this id"
    times_us = [info.at_us for info in infos if info.at_us and info.status == best.status]
    if coordinator is not None and coordinator.at_us:
        times_us = [coordinator.at_us]
    return transfer_view(best, _participants(coordinator, branches), min(times_us, default=0), reason)


def join_cancels(id: bytes, results: Sequence[TransferResult], silent: Sequence[str]) -> TransferResult:
    """What became of an id by the answers of all branches to Cancel. Aborted only if every one of them says so."""
    best = max(results, key=lambda result: _WEIGHT.get(result.status, 0), default=None)
    missing = [*silent, *(result.reason for result in results if result.status == UNKNOWN)]
    if best is not None and best.status == COMMITTED:
        return best
    pending = next((result for result in results if result.status == PENDING), None)
    if pending is not None:
        return pending
    if best is not None and best.status == ABORTED and not missing:
        return best
    reason = f"no answer from {', '.join(missing)}: ask again" if missing else "no branch answered: ask again"
    return TransferResult(format_id(id), UNKNOWN, reason=reason)


def merge_transfers(
    cursors: Mapping[str, str], pages: Mapping[str, TransfersPage], limit: int
) -> tuple[list[TransferListed], dict[str, str]]:
    """The newest `limit` of all branches' pages, and where each branch goes on (those that are at their end are left out).

    `cursors`: where each branch's page began; a branch without a page did not answer, and is asked from there again.
    A branch that ended its page early, and found something, has no more that is newer than that: what others have from
    before then waits for its next page.
    """
    every = [(one.info.at_us, name, one) for name, page in sorted(pages.items()) for one in page.transfers]
    every.sort(key=lambda entry: -entry[0])  # stable: the order of each branch stays
    unknown_us = max((page.transfers[-1].info.at_us for page in pages.values() if page.cursor and page.transfers), default=0)
    chosen = [entry for entry in every[:limit] if entry[0] >= unknown_us]
    following: dict[str, str] = {}
    for name, began in cursors.items():
        page = pages.get(name)
        taken = [one for _, branch, one in chosen if branch == name]
        if page is None:
            following[name] = began
        elif len(taken) < len(page.transfers):
            following[name] = taken[-1].cursor if taken else began
        elif page.cursor:
            following[name] = page.cursor
    return [one for _, _, one in chosen], following


def _knowledge(info: TransferInfo) -> tuple[int, int, int]:
    return _WEIGHT.get(info.status, 0), len(info.timeline) + len(info.participants), len(info.legs)


def _participants(coordinator: TransferInfo | None, branches: Sequence[TransferInfo]) -> tuple[ParticipantInfo, ...]:
    """By branch: what the branch says of its own state, with the times that the coordinator saw."""
    found: dict[str, ParticipantInfo] = {}
    for info in branches:
        for said in info.participants:
            found[said.branch] = said
    for seen in () if coordinator is None else coordinator.participants:
        own = found.get(seen.branch)
        if own is None:
            found[seen.branch] = seen
        else:
            state, vote = own.state or seen.state, seen.vote or own.vote
            apply_us = max(seen.apply_us, own.apply_us)
            found[seen.branch] = ParticipantInfo(seen.branch, state, vote, seen.prepare_us, apply_us)
    return tuple(found[branch] for branch in sorted(found))
