"""The files and lines by which a step speaks to the runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.github.commands import LARGEST_FILE, Listener, Masks, read_pairs
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
def test_outputs_are_lines_or_blocks_with_an_end_of_their_own(file: Path, text: str, expected: dict[str, str]) -> None:
    file.write_bytes(text.encode())
    assert read_pairs(file) == expected


@pytest.mark.parametrize("text", ["a\n", "=1\n", "a<<E\n1\n", "a<<\n1\n", "x" * (LARGEST_FILE + 1)])
def test_a_file_that_is_not_one_fails_the_step(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MlopsError):
        read_pairs(file)


@given(value=st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_value_survives_a_block(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    file = tmp_path_factory.mktemp("x") / "output"
    file.write_bytes(f"name<<ghadelimiter_1\n{value}\nghadelimiter_1\n".encode())
    assert read_pairs(file) == {"name": value}


@given(secret=st.text(min_size=5, max_size=20).filter(lambda text: len(text.strip()) > 4), around=st.text(max_size=10))
@settings(max_examples=40, deadline=None)
def test_a_secret_is_hidden_wherever_it_stands(secret: str, around: str) -> None:
    masks = Masks()
    masks.add(secret)
    hidden = masks.hide(f"{around}{secret}{around}")
    assert secret.strip() not in hidden.replace("***", "")


def test_a_short_line_of_a_long_secret_does_not_blacken_the_log() -> None:
    masks = Masks()
    masks.add('{\n  "password": "hunter2!"\n}')
    assert masks.hide("{ fine }") == "{ fine }"
    assert "hunter2" not in masks.hide('  "password": "hunter2!"')


def test_a_command_that_is_not_one_is_an_ordinary_line() -> None:
    listener = Listener(Masks())
    assert listener.hear("a ::error::x") == "a ::error::x"
    assert listener.hear("::group::Title") == "::group::Title"
    assert (listener.annotations, listener.problems) == ([], [])
