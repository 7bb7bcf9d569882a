"""Workflow commands and files of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.github.runner.workflow_commands import LARGEST_FILE, Listener, Masks, read_pairs
from pipelines.declarations.errors import MlopsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=1\n", {"a": "1"}),
        ("a=1=2\nb=\n", {"a": "1=2", "b": ""}),
        ("a=x<<y\n", {"a": "x<<y"}),
        ("a<<E\n1\n\n2\nE\nb=3", {"a": "1\n\n2", "b": "3"}),
        ("a<<E\nE\n", {"a": ""}),
        ("a<<E\r\n1\r\nE\r\n", {"a": "1"}),
        ("a=1\na=2\n", {"a": "2"}),
    ],
)
def test_outputs_are_lines_or_delimited_blocks(file: Path, text: str, expected: dict[str, str]) -> None:
    file.write_bytes(text.encode())
    assert read_pairs(file) == expected


@pytest.mark.parametrize("text", ["a\n", "=1\n", "a<<E\n1\n", "a<<\n1\n", "x" * (LARGEST_FILE + 1)])
def test_an_invalid_output_file_is_an_error(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MlopsError):
        read_pairs(file)


@given(value=st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_value_round_trips_through_a_block(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    file = tmp_path_factory.mktemp("x") / "output"
    file.write_bytes(f"name<<ghadelimiter_1\n{value}\nghadelimiter_1\n".encode())
    assert read_pairs(file) == {"name": value}


@given(secret=st.text(min_size=5, max_size=20).filter(lambda text: len(text.strip()) > 4), around=st.text(max_size=10))
@settings(max_examples=40, deadline=None)
def test_a_secret_is_hidden_anywhere_in_a_line(secret: str, around: str) -> None:
    masks = Masks()
    masks.add(secret)
    hidden = masks.hide(f"{around}{secret}{around}")
    assert secret.strip() not in hidden.replace("***", "")


def test_a_short_line_of_a_long_secret_is_not_hidden_everywhere() -> None:
    masks = Masks()
    masks.add('{\n  "password": "hunter2!"\n}')
    assert masks.hide("{ fine }") == "{ fine }"
    assert "hunter2" not in masks.hide('  "password": "hunter2!"')


def test_an_unknown_command_is_an_ordinary_line() -> None:
    listener = Listener(Masks())
    assert listener.hear("a ::error::x") == "a ::error::x"
    assert listener.hear("::group::Title") == "::group::Title"
    assert (listener.annotations, listener.problems) == ([], [])
