"""Files are written atomically, and are accessible to their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.declarations.atomic_files import write_atomically


def test_a_write_replaces_the_whole_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
    assert modes == [0o600, 0o700], "new files are accessible to their owner only"
    path.chmod(0o751)
    write_atomically(path, b"\xff")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"\xff", 0o751)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("swept", [False, True])
def test_a_failed_write_leaves_the_file_unchanged_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    seen: list[str] = []

    def full(handle: int) -> None:
        seen.extend(p.name for p in tmp_path.iterdir() if p != path)
        assert Path(f"/proc/self/fd/{handle}").read_bytes() == b"after", "the content is written before fsync"
        if swept:
            (tmp_path / seen[0]).unlink()
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, "after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    assert [name.startswith(".file.") for name in seen] == [True], "the temporary file is hidden, in the same folder"
