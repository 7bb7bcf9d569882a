"""Files are written whole or not at all, and are for their owner only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.declarations.files import write_atomically


def test_a_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    new, old = tmp_path / "folder" / "new", tmp_path / "old"
    old.write_text("old")
    old.chmod(0o644)
    write_atomically(new, "line\r\n")
    write_atomically(old, b"new")
    assert new.read_bytes() == b"line\r\n"
    assert [path.stat().st_mode & 0o777 for path in (new, new.parent, old)] == [0o600, 0o700, 0o644]


def test_a_failed_write_leaves_the_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "dev.json"
    write_atomically(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
