"""Texts of others do nothing when they are printed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.data.batch import reason
from pipelines.data.landing import landing_files
from pipelines.declarations.printable import log_line, printable

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
"""A sequence with which a terminal changes the clipboard."""


@pytest.mark.parametrize("text", [CLIPBOARD, "a\nb", "a\rb", "a\x00", "a\u202eb", "a\u200bb", "\x9b31m", "\ud800"])
def test_what_a_terminal_would_act_on_is_replaced(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and len(shown) == len(text)
    printable(text).encode()


@pytest.mark.parametrize("text", ["", "café", "日本語.csv", "a b", "👍"])
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == text


def test_some_characters_can_be_kept() -> None:
    assert printable("a\tb\nc\x1b", keep="\t\n") == "a\tb\nc\ufffd"


@pytest.mark.parametrize("line", ["##[add-mask]e", "42 ##[set-output name=bundle]x", "::set-output name=bundle::x"])
def test_a_line_of_a_job_is_no_command_of_a_workflow(line: str) -> None:
    assert "##[" not in f"| {log_line(line)}", "the runner looks for this anywhere in a line"
    assert not f"| {log_line(line)}".lstrip().startswith("::"), "and for this at the start"


def test_the_name_of_a_landing_file_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone who may land files chooses their names; the key stays as it is."""

    def listing(*_: Any, **__: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(key=f"visits/{CLIPBOARD}.csv", size=1, etag='"e"')]

    monkeypatch.setattr("pipelines.data.landing.store.listing", listing)
    monkeypatch.setattr("pipelines.data.landing.s3", lambda _: None)
    (file,) = landing_files(SimpleNamespace(landing_bucket="b"), "visits")  # type: ignore[arg-type]
    assert file.key == f"visits/{CLIPBOARD}.csv"
    assert file.name.isprintable() and file.name.endswith(".csv")


def test_a_value_that_breaks_a_rule_can_be_printed() -> None:
    assert reason("city", "pattern", "letters", CLIPBOARD)["found"].isprintable()
