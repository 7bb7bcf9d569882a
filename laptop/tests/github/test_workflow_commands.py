"""Workflow commands and files of a step."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.github.runner.workflow_commands import LARGEST_SUMMARY, Listener, Masks, read_pairs, read_summary
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


@pytest.mark.parametrize("text", ["a\n", "=1\n", "a<<E\n1\n", "a<<\n1\n"])
def test_an_invalid_output_file_is_an_error(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MlopsError):
        read_pairs(file)


def test_an_output_has_no_limit_and_a_summary_has_one(file: Path) -> None:
    file.write_text(f"a={'x' * LARGEST_SUMMARY}\n", encoding="utf-8")
    assert len(read_pairs(file)["a"]) == LARGEST_SUMMARY
    with pytest.raises(MlopsError, match="supports content up to a size of 1024k, got 1024k"):
        read_summary(file)


def test_a_byte_order_mark_is_no_part_of_a_name(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfa=1\n")
    assert read_pairs(file) == {"a": "1"}


@given(value=st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=40)
def test_any_value_round_trips_through_a_block(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    file = tmp_path_factory.mktemp("x") / "output"
    file.write_bytes(f"name<<ghadelimiter_1\n{value}\nghadelimiter_1\n".encode())
    assert read_pairs(file) == {"name": value}


@given(secret=st.text(min_size=5, max_size=20).filter(lambda text: len(text.strip()) > 4), around=st.text(max_size=10))
@settings(max_examples=40)
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


def test_the_former_syntax_of_commands_works_anywhere_in_a_line() -> None:
    listener = Listener(Masks())
    assert listener.hear("  file ##[set-output name=x]a%5Db: refused") == "  file ##[set-output name=x]a%5Db: refused"
    listener.hear("an error: ##[Error file=a%3Bb;line=2]it%0Afailed")
    assert listener.outputs == {"x": "a]b: refused"}
    assert [(each.level, each.message, each.file, each.line) for each in listener.annotations[1:]] == [
        ("error", "it\nfailed", "a;b", "2")
    ]
    listener.hear("##[stop-commands]token")
    listener.hear("##[set-output name=x]2")
    listener.hear("::token::")
    listener.hear("::SET-OUTPUT name=y::3")
    assert listener.outputs == {"x": "a]b: refused", "y": "3"}


def test_nothing_that_mlops_and_its_programs_print_in_a_workflow_is_a_command() -> None:
    printed = """
import os, sys
from pipelines.cli.main import main
main(["schemas", "--help"])
print("##[set-output name=x]1", "\\r::set-output name=y::1")
sys.stdout.flush()
os.system("echo '::add-mask::pass'")
"""
    done = subprocess.run(
        [sys.executable, "-c", printed],
        env={**os.environ, "GITHUB_ACTIONS": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    listener = Listener(Masks())
    for line in done.stdout.splitlines():
        listener.hear(line)
    assert (listener.outputs, listener.annotations, listener.masks.hide("pass")) == ({}, [], "pass")
    heard = Listener(Masks())
    for line in done.stdout.splitlines()[1:]:  # the first line stops commands
        heard.hear(line)
    assert (heard.outputs, heard.masks.hide("pass")) == ({"x": "1 ", "y": "1"}, "***")


def test_secrets_that_overlap_are_hidden_as_one() -> None:
    masks = Masks()
    for secret in ("abcdef", "defghi", "jklmno"):
        masks.add(secret)
    assert masks.hide("x abcdefghijklmno y abcdef z defghi") == "x *** y *** z ***"


SECRET = """s<e>c&r"e't/one two+\u00e9"""


@pytest.mark.parametrize(
    "shown",
    [
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"u:{SECRET}:more".encode()).decode(),
        base64.b64encode(f"use:{SECRET}".encode()).decode(),
        quote(SECRET, safe=""),
        escape(SECRET, {'"': "&quot;", "'": "&apos;"}),
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        f"'{SECRET.replace(chr(39), chr(39) * 2)}'",
        SECRET.replace('"', '\\"'),
    ],
)
def test_the_forms_that_a_secret_takes_in_other_texts_are_hidden(shown: str) -> None:
    masks = Masks()
    masks.add(SECRET)
    hidden = masks.hide(shown)
    assert "***" in hidden
    assert len(hidden) < len(shown) - len(SECRET) // 2
    assert masks.hide("a text without it") == "a text without it"


def test_the_inside_of_a_quoted_secret_is_hidden() -> None:
    masks = Masks()
    masks.add('"in-quotes"')
    assert masks.hide("say in-quotes") == "say ***"


def test_the_old_commands_work_with_a_warning_and_those_that_github_disabled_fail() -> None:
    listener = Listener(Masks())
    for line in ("::set-output name=x::1", "::set-output name=x::2", "::save-state name=y::1"):
        listener.hear(line)
    assert (listener.outputs, listener.problems) == ({"x": "2"}, [])
    assert [each.level for each in listener.annotations] == ["warning", "warning"], "one for each command"
    for line in ("::set-env name=x::1", "::add-path::/x", "::set-output::1"):
        listener.hear(line)
    assert len(listener.problems) == 3
