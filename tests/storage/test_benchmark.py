"""The measuring script runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.store import main


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["append", "--rows", "50", "--batches", "1", "20"], "append, 20 rows a commit"),
        (["post", "--accounts", "30", "--records", "20", "--postings", "2"], "post 20 rows, 30 accounts"),
    ],
)
def test_it_reports(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["store.py", "--directory", str(tmp_path), *arguments])
    assert main() == 0
    assert line in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
