"""A process of a branch's data may change its role: a replica is promoted, a branch finds that one took its place.

    replica ── promoted ──▶ branch ── superseded ──▶ replica, beside its former file

What a file is stands in the file, and beside it: started again by the same command, a process goes on as what it became.
"""

from __future__ import annotations

import logging
from pathlib import Path

from zbank.apps import branch, coordinator, former, replica
from zbank.apps.branch import BranchSettings
from zbank.apps.coordinator import CoordinatorSettings
from zbank.apps.replica import ReplicaSettings
from zbank.apps.serving import EXIT_FAILED, EXIT_USAGE, role_named
from zbank.clock import Clock
from zbank.config import Endpoint, data_file, parse_endpoint
from zbank.errors import InvalidConfig, StoreError, Superseded
from zbank.ids import new_id
from zbank.protocol.codec import chain_value, encode_record, record_kind
from zbank.protocol.fold import Row
from zbank.protocol.following import TakesOver
from zbank.protocol.messages import COORDINATOR, REPLICA
from zbank.protocol.records import Promoted
from zbank.storage.opening import role_of
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.keys import read_list, secrets_in

log = logging.getLogger("zbank")


def run_branch(settings: BranchSettings) -> int:
    """Run a branch; when a replica took its place, go on as a replica. Gives the exit code."""
    path = data_file(settings.data, settings.file or settings.name)
    why: Superseded | None = None
    if not former.mark_of(path).exists():
        try:
            return branch.run(settings)
        except Superseded as error:
            why = error
            former.mark(path, error)
    former.log_superseded(path, why)
    try:
        name = _replica_name(settings)
    except InvalidConfig as error:
        log.error("%s: %s", error.code, error.detail)
        return EXIT_USAGE
    return run_replica(
        ReplicaSettings(
            name=name,
            of=settings.name,
            cluster=settings.cluster,
            endpoint=settings.endpoint,
            bind=settings.bind,
            coordinators=settings.coordinators,
            currency=settings.currency,
            data=settings.data,
            branches={},
            keys=settings.keys,
            acks=settings.acks,
            standby=settings.standby,
            former=path,
        )
    )


def run_replica(settings: ReplicaSettings) -> int:
    """Run a replica; when it is promoted, go on as its branch, or as the coordinator. Gives the exit code."""
    path = data_file(settings.data, settings.name)
    role = role_named(settings.of)
    if role_of(path) != role:
        try:
            return replica.run(settings)
        except TakesOver as promotion:
            log.warning("%s, at the word of %s", promotion, promotion.by or "an operator")
            try:
                _take_over(path, settings.identity, promotion)
            except StoreError as error:
                log.error("%s: %s", error.code, error.detail)
                return EXIT_FAILED
    if role == COORDINATOR:
        return coordinator.run(_as_coordinator(settings))
    return run_branch(
        BranchSettings(
            name=settings.of,
            cluster=settings.cluster,
            endpoint=settings.endpoint,
            bind=settings.bind,
            coordinators=settings.coordinators,
            currency=settings.currency,
            data=settings.data,
            peers={},
            preload=False,
            keys=settings.keys,
            acks=settings.acks,
            standby=settings.standby,
            file=settings.name,
        )
    )


def _as_coordinator(settings: ReplicaSettings) -> CoordinatorSettings:
    """The coordinator that a replica of it has become: at the replica's address, with the feed at the next ports."""
    bind = parse_endpoint(settings.bind)
    feeds = [str(Endpoint(bind.host, bind.port + offset)) for offset in (1, 2)] if bind.port else ["", ""]
    return CoordinatorSettings(
        cluster=settings.cluster,
        endpoint=settings.endpoint,
        bind=settings.bind,
        data=settings.data,
        branches=tuple(settings.branches),
        keys=settings.keys,
        feed_in=feeds[0],
        feed_out=feeds[1],
        acks=settings.acks,
        file=settings.name,
    )


def _take_over(path: Path, identity: Identity, promotion: TakesOver) -> None:
    """The file is that of whom it followed from here on, and says which row was the former one's last (PROTOCOL R2)."""
    store = JournalStore.open(path, identity, new_id())
    try:
        epoch = max(store.epoch + 1, promotion.epoch)
        record = Promoted(promotion.by, store.epoch)
        seq, at_us = store.seq + 1, max(store.at_us, Clock().now().wall_us)
        kind, body = record_kind(record), encode_record(record)
        chain = chain_value(store.chain, epoch, seq, at_us, kind, None, body)
        store.become(role_named(identity.name), Row(seq, epoch, at_us, kind, None, body, chain))
    finally:
        store.close()


def _replica_name(settings: BranchSettings) -> str:
    """As whom a former branch rejoins: by a replica's key, where the bank has keys. Raises InvalidConfig when there is none."""
    usual = f"{settings.file or settings.name}-former"
    if settings.keys is None:
        return usual
    key = read_list(settings.keys).of_name(usual) if usual in secrets_in(settings.keys) else None
    if key is None or key.role != REPLICA:
        advice = f"`zbank keys add {usual} --role replica`, copy it and keys.toml here, and start this again"
        raise InvalidConfig(f"there is no key {usual} in {settings.keys}, by which to follow the new branch: {advice}")
    return usual
