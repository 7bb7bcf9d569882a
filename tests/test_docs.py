"""The documentation: links resolve, commands exist, decisions are indexed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from pipelines.cli.main import mlops

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
IMAGES = ROOT / "docs" / "images"

LAPTOP_COMMANDS = ("laptop", "demo", "github create", "github serve", "github clone", "github env")
"""Commands that the laptop adds if it is installed."""

HISTORY = ("CHANGELOG.md", "docs/decisions/")
"""Pages that may name commands of the past."""

FENCE = re.compile(r"^ *```(\w*)[^\n`]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
"""A block of code: its language, and its text. Words after the language say for whom it is."""

LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|srcset|href)=\"([^\"]+)\"")
SPAN = re.compile(r"`([^`\n]+)`")
CALL = re.compile(r"(?<![\w./-])(?:\.venv/bin/)?mlops +([^\n|;&)]*)")
MAKE = re.compile(r"(?:^|&& *)make +([a-z-]+)", re.MULTILINE)


class Snippet(NamedTuple):
    """Shell code in a page: a block that can be run, or a mention in the text."""

    page: str
    text: str
    runnable: bool


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return sorted(path for name in set(listed.decode().split("\0")) if name and (path := ROOT / name).is_file())


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shell_snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text()
    for language, block in FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            yield Snippet(name_of(page), block, runnable=True)
    for span in SPAN.findall(FENCE.sub("", text)):
        yield Snippet(name_of(page), span, runnable=False)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def repeated_headings(page: Path) -> list[str]:
    """Return headings that a page has twice under one heading: a link leads to the first, and a reader finds one."""
    place: dict[int, str] = {}
    seen, repeated = set(), []
    for marks, heading in re.findall(r"^(#+) +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        place = {level: name for level, name in place.items() if level < len(marks)}
        way = (*place.values(), heading)
        if way in seen:
            repeated.append(heading)
        seen.add(way)
        place[len(marks)] = heading
    return repeated


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if path.is_relative_to(ROOT / "laptop") and not (ROOT / "laptop").exists():
            continue
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            broken.append(f"{target}#{anchor}")
    return broken


def calls() -> list[tuple[str, str, bool]]:
    """Return the `mlops` calls of all pages: page, arguments, and if they can be run as they are."""
    found = {
        (snippet.page, arguments.partition(" #")[0].strip(), snippet.runnable)
        for page in pages()
        if not name_of(page).startswith(HISTORY)
        for snippet in shell_snippets(page)
        for arguments in CALL.findall(snippet.text)
    }
    return sorted(found)


def check_call(arguments: str, *, complete: bool) -> None:
    """Parse a call without running it.

    Args:
        arguments: what follows `mlops`.
        complete: required options and arguments must be there.

    Raises:
        click.UsageError: a command, option or argument does not exist or is missing.
    """
    words = shlex.split(arguments)
    command: click.Command = mlops
    context = click.Context(mlops)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command = found
        context = click.Context(command)
    given, left, _ = command.make_parser(context).parse_args(words)
    if left:
        raise click.UsageError(f"unexpected arguments: {left}")
    if complete:
        for parameter in command.params:
            if parameter.required and not isinstance(given.get(str(parameter.name)), str | tuple | list):
                raise click.MissingParameter(ctx=context, param=parameter)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_relative_link_resolves(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", [page for page in pages() if page.name != "CHANGELOG.md"], ids=name_of)
def test_no_page_has_a_section_twice(page: Path) -> None:
    assert repeated_headings(page) == []


@pytest.mark.parametrize(("page", "arguments", "runnable"), calls())
def test_every_mlops_command_in_the_documentation_exists(page: str, arguments: str, runnable: bool) -> None:
    is_of_laptop = f"{arguments} ".startswith(tuple(f"{command} " for command in LAPTOP_COMMANDS))
    if is_of_laptop and "laptop" not in mlops.list_commands(click.Context(mlops)):
        pytest.skip("the laptop is not installed")
    check_call(arguments, complete=runnable)


@pytest.mark.parametrize(
    "arguments", ["sing", "new song", "up --loud", "up dev", "ingest --env", "up", "train --env dev"]
)
def test_an_invalid_call_is_detected(arguments: str) -> None:
    with pytest.raises(click.UsageError):
        check_call(arguments, complete=True)


def test_every_make_target_in_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (name_of(page), target)
        for page in pages()
        if not name_of(page).startswith(HISTORY)
        for snippet in shell_snippets(page)
        for target in MAKE.findall(snippet.text)
    }
    assert named
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_every_place_in_the_readme_exists_and_no_package_is_missing() -> None:
    tree = re.search(r"```text\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree
    places, parent = set(), ""
    for indent, name in re.findall(r"^( *)(\S+)  ", tree[1], re.MULTILINE):
        parent = parent if indent else name
        places.add(parent + name if indent else name)
    patterns = {place: re.sub(r"<\w+>", "*", place) for place in places if place != "laptop/"}
    assert {place for place, pattern in patterns.items() if not list(ROOT.glob(pattern))} == set()
    packages = {f"pipelines/{path.parent.name}/" for path in (ROOT / "pipelines").glob("*/__init__.py")}
    assert packages <= places


def test_every_decision_is_in_the_index_with_its_date_and_status() -> None:
    expected = []
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        text = path.read_text()
        title = re.match(r"# (\d{4})\. (.+)\n", text)
        date = re.search(r"^- Date: (\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
        status = re.search(r"^- Status: (proposed|accepted|superseded by \d{4})$", text, re.MULTILINE)
        assert title and date and status, f"{path.name}: see template.md"
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], path.name
        assert title[1] == path.name[:4]
        expected.append(f"| [{title[1]}]({path.name}) | {title[2]} | {date[1]} | {status[1]} |")
    rows = [line for line in (DECISIONS / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert rows == expected
    assert [path.name[:4] for path in sorted(DECISIONS.glob("[0-9]*.md"))] == [
        f"{number:04}" for number in range(1, len(expected) + 1)
    ]


def test_the_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(terms) >= 40
    assert [term.lower() for term in terms] == sorted({term.lower() for term in terms})


def test_the_light_and_the_dark_picture_differ_in_their_colours_only() -> None:
    colours = re.compile(r"svg \{ (.*?) \}")
    light, dark = ((IMAGES / f"architecture-{mode}.svg").read_text() for mode in ("light", "dark"))
    assert colours.sub("", light) == colours.sub("", dark)
    names = [re.findall(r"--\w+", colours.findall(picture)[0]) for picture in (light, dark)]
    assert names[0] == names[1] != []


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-issue-forms", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))),
        ("vendor.github-issue-config", [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_issue_forms_are_valid(schema: str, files: list[Path]) -> None:
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
