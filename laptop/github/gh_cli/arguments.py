"""Command-line arguments of `gh`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.declarations.errors import MlopsError

SHORT = {"-R": "--repo", "-t": "--title", "-F": "--field", "-f": "--raw-field", "-X": "--method", "-q": "--jq"}
PULL_SHORT = {**SHORT, "-F": "--body-file", "-H": "--head", "-B": "--base", "-l": "--label", "-L": "--limit"}
PULL_SHORT |= {"-s": "--state", "-a": "--approve", "-m": "--merge"}
LIST_SHORT = {**SHORT, "-L": "--limit", "-w": "--workflow", "-b": "--branch", "-e": "--event"}
API_SHORT = {**SHORT, "-H": "--header"}


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

    def has(self, name: str) -> bool:
        """Return whether an option is passed."""
        return name in self.options

    def number(self) -> int:
        """Return the only operand, a number.

        Raises:
            UsageError: it is not a number.
        """
        if len(self.operands) != 1 or not self.operands[0].isdecimal():
            raise UsageError(f"expected one number, found {self.operands}")
        return int(self.operands[0])


def read_arguments(
    arguments: Sequence[str], valued: str, flags: str, short: Mapping[str, str], operands: int
) -> Arguments:
    """Parse the arguments of a command.

    Args:
        arguments: without the command itself.
        valued: long names of options with a value, separated by spaces.
        flags: long names of options without a value.
        short: short name → long name.
        operands: how many operands the command takes.

    Raises:
        UsageError: an argument is unknown, or one is missing.
    """
    given, rest = Arguments(), list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or argument == "-":
            given.operands.append(argument)
            continue
        name, equals, value = argument.partition("=") if argument.startswith("--") else (argument, "", "")
        name = short.get(name, name)
        if name in flags.split() and not equals:
            given.options[name] = []
        elif name in f"{valued} --repo".split():
            if not equals:
                if not rest:
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            given.options.setdefault(name, []).append(value)
        else:
            raise UsageError(f"unknown argument {argument!r}")
    if len(given.operands) != operands:
        raise UsageError(f"expected {operands} operands, found {given.operands}")
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
