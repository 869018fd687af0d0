"""What a former branch alone has, when there is no room to save it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch
from zbank.apps.former import FormerTail, open_tail
from zbank.protocol.messages import BRANCH
from zbank.storage.sqlite import Identity, JournalStore


def test_a_full_disk_does_not_keep_it_from_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former, new = tmp_path / "former", tmp_path / "new"
    for folder, number in ((former, "1"), (new, "2")):
        folder.mkdir()
        desk: Desk = branch(folder, number)
        desk.store.close()
    followed = JournalStore.open(new / "Mumbai.db", Identity("demo", BRANCH, "Mumbai"), bytes(16), reserve_bytes=0)

    def full(_self: FormerTail, _seq: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FormerTail, "_save", full)
    tail = open_tail(former / "Mumbai.db", Identity("demo", BRANCH, "Mumbai"), followed)
    assert tail is not None
    tail.look(())
    tail.close()
    monkeypatch.undo()
    again = open_tail(former / "Mumbai.db", Identity("demo", BRANCH, "Mumbai"), followed)
    assert again is not None
    again.close()
    followed.close()
    assert len(list(former.glob("*.jsonl"))) == 1
