"""Syntax and arguments of the commands of `gh`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from pipelines.declarations.errors import MlopsError


class UsageError(Exception):
    """The arguments are wrong, or not implemented here."""


@dataclass
class Arguments:
    """Arguments of a command.

    Attributes:
        operands: positional arguments.
        options: long name → values; flags have none.
    """

    operands: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str, default: str | None = None) -> str:
        """Return the value of an option.

        Raises:
            UsageError: it is missing and has no default, or is passed twice.
        """
        values = self.options.get(name)
        if values is None:
            if default is None:
                raise UsageError(f"{name} is required here")
            return default
        if len(values) > 1:
            raise UsageError(f"{name}: expected one value, found {len(values)}")
        return values[0]

    def many(self, name: str) -> list[str]:
        """Return the values of an option that may be repeated, or list several values with commas between them."""
        return [part for value in self.options.get(name, []) for part in value.split(",")]

    def has(self, name: str) -> bool:
        """Return whether an option is passed."""
        return name in self.options

    def whole(self, name: str, default: int) -> int:
        """Return the value of an option that is a positive whole number.

        Raises:
            UsageError: it is not.
        """
        text = self.one(name, str(default))
        if not text.isdecimal() or int(text) < 1:
            raise UsageError(f"{name}: expected a positive whole number, found {text!r}")
        return int(text)

    def text(self, name: str) -> str | None:
        """Return the text of `--body`, or of the file of `--body-file`; None without either.

        Args:
            name: `--body`; the option for a file has `-file` appended.

        Raises:
            UsageError: both are passed.
            MlopsError: the file cannot be read.
        """
        if self.has(name) and self.has(f"{name}-file"):
            raise UsageError(f"specify only one of {name} or {name}-file")
        if self.has(f"{name}-file"):
            return read_text(self.one(f"{name}-file"))
        return self.one(name) if self.has(name) else None


Handler = Callable[[GitHubServer, Actor, Arguments], "int | None"]
"""Runs a command. Returns its exit code; None for 0."""


@dataclass(frozen=True)
class GhCommand:
    """A command of `gh`.

    Attributes:
        words: `pr create`.
        handler: runs it. The first line of its docstring is the summary in `--help`.
        operand: name of its operand in `--help`, "" if it takes none.
        operands: the least and the greatest number of operands.
        valued: names of options with a value, separated by spaces: `--title/-t`.
        flags: names of options without a value.
    """

    words: str
    handler: Handler
    operand: str = ""
    operands: tuple[int, int] = (0, 0)
    valued: str = ""
    flags: str = ""

    @property
    def _names(self) -> Mapping[str, tuple[str, bool]]:
        """Return each name that a caller may write → its long name, and whether it has a value."""
        options = [(name, True) for name in f"{self.valued} --repo/-R".split()]
        options += [(name, False) for name in self.flags.split()]
        return {alias: (name.split("/")[0], valued) for name, valued in options for alias in name.split("/")}

    @property
    def summary(self) -> str:
        """Summary of the command, on one line."""
        return (self.handler.__doc__ or "").strip().split("\n")[0]

    @property
    def known(self) -> str:
        """The options, for an error."""
        return ", ".join(f"{self.valued} {self.flags} --repo/-R".split())

    def help(self) -> str:
        """Return the text of `--help`."""
        lines = [self.summary, "", f"usage: gh {self.words} {self.operand} [options]".replace("  ", " "), ""]
        options = [f"{name} VALUE" for name in f"{self.valued} --repo/-R".split()] + self.flags.split()
        return "\n".join([*lines, *(f"  {option}" for option in sorted(options))])

    def read(self, arguments: Sequence[str]) -> Arguments:
        """Parse the arguments that follow the command's words.

        Raises:
            UsageError: an argument is unknown, or one is missing.
        """
        given, rest = Arguments(), list(arguments)
        names = self._names
        while rest:
            argument = rest.pop(0)
            if argument == "--":
                given.operands += rest
                break
            if not argument.startswith("-") or argument == "-":
                given.operands.append(argument)
                continue
            written, equals, value = argument.partition("=")
            if not written.startswith("--") and written not in names and written[:2] in names:
                # `-L5` is `-L 5`, and `-fd` is `-f -d`.
                if names[written[:2]][1]:
                    written, equals, value = written[:2], "=", argument[2:].removeprefix("=")
                else:
                    rest.insert(0, f"-{argument[2:]}")
                    written, equals, value = written[:2], "", ""
            if written not in names or (equals and not names[written][1]):
                raise UsageError(f"unknown flag: {argument}; gh {self.words} knows here: {self.known}")
            name, valued = names[written]
            if not valued:
                given.options[name] = []
                continue
            if not equals:
                if not rest:
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            given.options.setdefault(name, []).append(value)
        fewest, most = self.operands
        if not fewest <= len(given.operands) <= most:
            expected = str(most) if fewest == most else f"{fewest} to {most}"
            raise UsageError(f"gh {self.words}: expected {expected} operands, found {given.operands}")
        return given


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for `-`.

    Raises:
        MlopsError: the file cannot be read.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MlopsError(f"open {path}: {error}") from None


def read_fields(given: Arguments) -> dict[str, str]:
    """Return the pairs of `-f key=value` and `-F key=value`; after `-F`, `@file` is a file's content.

    Raises:
        UsageError: a pair has no `=`.
        MlopsError: a file cannot be read.
    """
    fields: dict[str, str] = {}
    for name in ("--raw-field", "--field"):
        for pair in given.options.get(name, []):
            key, equals, text = pair.partition("=")
            if not equals:
                raise UsageError(f"{name}: expected key=value, found {pair!r}")
            fields[key] = read_text(text[1:]) if name == "--field" and text.startswith("@") else text
    return fields
