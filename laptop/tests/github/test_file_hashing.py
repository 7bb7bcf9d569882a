"""The function hashFiles()."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from laptop.github.runner.file_hashing import hash_files
from pipelines.declarations.errors import MlopsError

FILES = ("a.txt", "d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md", "e/[x].txt")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "link").symlink_to("d")
    return tmp_path


def digest_of(*names: str) -> str:
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(hashlib.sha256(name.encode()).digest())
    return total.hexdigest() if names else ""


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.txt"], {"a.txt"}),
        (["./a.txt"], {"a.txt"}),
        (["*.txt"], {"a.txt"}),
        (["**/*.txt"], {"a.txt", "d/b.txt", "d/s/c.txt", "e/[x].txt"}),
        (["**"], set(FILES)),
        (["."], set(FILES)),
        (["d"], {"d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md"}),
        (["d/"], {"d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md"}),
        (["d/**"], {"d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md"}),
        (["d/*"], {"d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md"}),
        (["d/**", "!d/s/**"], {"d/b.txt", "d/.hidden"}),
        (["d/**\n!d/s"], {"d/b.txt", "d/.hidden"}),
        (["!d/s/**", "d/**"], {"d/b.txt", "d/.hidden", "d/s/c.txt", "d/s/c.md"}),
        (["# a.txt\nd/b.txt"], {"d/b.txt"}),
        (["a.txt/"], set()),
        (["[a-c].txt"], {"a.txt"}),
        (["[!a].txt"], set()),
        (["?.txt"], {"a.txt"}),
        (["e/[[]x].txt"], {"e/[x].txt"}),
        (["e/\\[x].txt"], {"e/[x].txt"}),
        (["{a,b}.txt"], set()),
        (["/a.txt"], set()),
        (["link/*.txt"], set()),
        (["nothing"], set()),
        ([""], set()),
    ],
)
def test_the_files_that_match_are_hashed(workspace: Path, patterns: list[str], expected: set[str]) -> None:
    assert hash_files(workspace, patterns) == digest_of(*expected)


def test_an_absolute_pattern_counts_inside_the_workspace(workspace: Path) -> None:
    assert hash_files(workspace, [f"{workspace}/d/*.txt"]) == digest_of("d/b.txt")


@pytest.mark.parametrize("pattern", ["../x", "d/../a.txt", "d/./b.txt"])
def test_a_pattern_with_dots_is_an_error(workspace: Path, pattern: str) -> None:
    with pytest.raises(MlopsError, match="expected a pattern inside the workspace"):
        hash_files(workspace, [pattern])
