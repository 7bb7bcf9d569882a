"""Type the commands of a page into a terminal, as a reader does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^( *)```(\w*) *([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## ", re.MULTILINE)
_ANYTHING = "…"


@dataclass(frozen=True)
class TypedBlock:
    """Commands of a page.

    Attributes:
        line: line of the page, from 1.
        place: what the commands are for, such as "aws"; "" for everything.
        commands: shell commands.
        expected: what they print, where `…` stands for anything; "" if the page does not show it.
    """

    line: int
    place: str
    commands: str
    expected: str = ""


def typed_blocks(page: Path, section: str = "") -> list[TypedBlock]:
    """Return the shell blocks of a page, each with the text block that follows it.

    Args:
        page: a Markdown file.
        section: heading of the section to look at; "" for the whole page.

    Raises:
        ValueError: the page has no such section.
    """
    text = page.read_text(encoding="utf-8")
    start, end = 0, len(text)
    if section:
        start = text.index(f"\n## {section}\n")
        end = next((after.start() for after in _HEADING.finditer(text, start + 1) if after.start() > start + 1), end)
    found: list[TypedBlock] = []
    for match in _BLOCK.finditer(text, start, end):
        _, language, place, body = match.groups()
        if language == "sh":
            line = text.count("\n", 0, match.start()) + 1
            found.append(TypedBlock(line, place.strip(), textwrap.dedent(body)))
        elif language == "text" and found:
            last = found.pop()
            found.append(TypedBlock(last.line, last.place, last.commands, textwrap.dedent(body)))
    return found


def matches(expected: str, printed: str) -> bool:
    """Return whether commands printed what a page shows: `…` alone is any lines, inside of a line any text."""
    lines = [line.rstrip() for line in expected.strip("\n").splitlines()]
    parts = [
        r"(?:.*\n)*?" if line == _ANYTHING else ".*?".join(map(re.escape, line.split(_ANYTHING))) + r"[ \t]*\n"
        for line in lines
    ]
    return re.fullmatch("".join(parts), printed.strip("\n") + "\n") is not None


class Terminal:
    """A shell that keeps its variables, functions and folder from block to block, and ends at the first failure.

    Args:
        folder: where it starts.
        environ: its environment variables.
        scratch: folder for its files.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], scratch: Path) -> None:
        self._scratch = scratch
        self._typed = 0
        self._others: list[subprocess.Popen[str]] = []
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e"],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, commands: str) -> str:
        """Type commands, and return what they print.

        Raises:
            AssertionError: one of them failed.
        """
        self._typed += 1
        script, end = self._scratch / f"block-{self._typed}.sh", f"end of block {self._typed}"
        script.write_text(commands)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f". {script} </dev/null\nprintf '\\n{end}\\n'\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.rstrip("\n") == end:
                return "".join(printed)
            printed.append(line)
        raise AssertionError(f"failed:\n{commands}\nprinted:\n{''.join(printed)[-6000:]}")

    def type_in_another(self, commands: str, log: Path) -> None:
        """Run commands in the background, with the same folder and variables."""
        environ, folder = self._scratch / "environ", self._scratch / "folder"
        self.type(f"env -0 > {environ}\npwd > {folder}\n")
        pairs = (entry.partition("=") for entry in environ.read_text().split("\0") if entry)
        with log.open("w") as output:
            other = subprocess.Popen(
                ["bash", "-c", commands],
                cwd=folder.read_text().strip(),
                env={name: value for name, _, value in pairs},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._others.append(other)

    def close(self) -> None:
        """End the shell, and interrupt what runs in the background."""
        for process in (*self._others, self._shell):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT if process in self._others else signal.SIGTERM)
            process.wait(60)


@contextmanager
def terminal(folder: Path, environ: Mapping[str, str], scratch: Path) -> Iterator[Terminal]:
    """Give a terminal that is closed at the end."""
    opened = Terminal(folder, environ, scratch)
    try:
        yield opened
    finally:
        opened.close()
