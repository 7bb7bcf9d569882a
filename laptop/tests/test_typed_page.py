"""How pages are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.tests.typed_page import matches, terminal, typed_blocks


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb\n", "\na\nb\n\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\n", False),
        ("took … s\n", "took 1.5 s\n", True),
        ("took … s\n", "took 1.5 s\nfailed s\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_a_page_shows_what_is_printed_except_where_it_leaves_out(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_blocks_have_a_place_and_what_they_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("x\n\n```sh\na\n```\n\n```text\nb\n```\n\n- c\n  ```sh aws only\n  d\n  ```\n\n```yaml\ne\n```\n")
    found = [(block.line, block.place, block.commands, block.expected) for block in typed_blocks(page)]
    assert found == [(3, "", "a\n", "b\n"), (12, "aws only", "d\n", "")]


def test_a_section_is_typed_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# T\n\n## A\n\n```sh\na\n```\n\n## B\n\n```sh\nb\n```\n\n### C\n\n```sh\nc\n```\n\n## D\n")
    assert [block.commands for block in typed_blocks(page, "B")] == ["b\n", "c\n"]
    assert [block.commands for block in typed_blocks(page)] == ["a\n", "b\n", "c\n"]
    with pytest.raises(ValueError, match="substring not found"):
        typed_blocks(page, "E")


def test_a_terminal_keeps_variables_folders_and_functions(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with terminal(tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path) as typist:
        typist.type('export A=1\ncd inner\nshout() { echo "$1!"; }\n')
        assert typist.type("shout $A; pwd\n").split() == ["1!", str(tmp_path / "inner")]
        log = tmp_path / "log"
        typist.type_in_another("echo $A; pwd", log)
        typist.type(f"until [ $(wc -l < {log}) = 2 ]; do sleep 0.05; done\n")
    assert log.read_text().split() == ["1", str(tmp_path / "inner")]


def test_a_command_that_fails_ends_the_page(tmp_path: Path) -> None:
    with (
        terminal(tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path) as typist,
        pytest.raises(AssertionError, match="something broke"),
    ):
        typist.type("echo something broke >&2; false\necho not reached\n")
