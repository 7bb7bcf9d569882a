"""Refuse a `pulumi up` or `pulumi preview` on AWS that leaves the policy pack out."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pipelines.declarations.errors import MlopsError

PACK = Path("infra", "policies")
"""Folder of the policy pack, relative to the project."""

_OPTION = "--policy-pack"
_OPERATIONS = frozenset({"up", "update", "preview", "pre"})
_PROCESSES = Path("/proc")
_MOST_ANCESTORS = 64


class TypedCommand(NamedTuple):
    """A command that was typed.

    Attributes:
        arguments: the program and its arguments.
        folder: its working directory.
    """

    arguments: tuple[str, ...]
    folder: Path


def require_policy_pack(root: Path, environment: Mapping[str, str] = os.environ, processes: Path = _PROCESSES) -> None:
    """Refuse to describe resources for a Pulumi CLI that does not apply the policy pack to them.

    The rules of an environment hold only if Pulumi runs them. The pack is an option of the CLI, which has no file or
    variable for it, so the program looks at the command that started it. Where there is no `/proc`, and for a
    Pulumi that is not a parent process, nothing is found and nothing is refused. An emulated account needs no rules.

    Args:
        root: folder of the project.
        environment: environment variables.
        processes: folder with a folder for each process, as Linux has it.

    Raises:
        MlopsError: the command runs the program on AWS without the pack.
    """
    if _emulated(environment.get("AWS_ENDPOINT_URL", "")):
        return
    for command in ancestors(os.getpid(), processes):
        if not runs_the_program(command.arguments):
            continue
        pack = root / PACK
        if not applies(command, pack):
            options = " ".join(command.arguments[1:])
            raise MlopsError(
                f"pulumi {options}: expected {_OPTION} {PACK}, the rules of this project, found none",
                fix=f"type `mlops up` or `mlops preview`, or add `{_OPTION} {os.path.relpath(pack, command.folder)}`",
            )
        return


def ancestors(process: int, processes: Path = _PROCESSES) -> Iterator[TypedCommand]:
    """Yield the commands of the parents of a process, nearest first, as far as they can be read.

    Args:
        process: its id.
        processes: folder with a folder for each process, as Linux has it.
    """
    for _ in range(_MOST_ANCESTORS):
        try:
            # The name of a program, in parentheses, may hold spaces and parentheses
            fields = (processes / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            process = int(fields[1])
            folder = processes / str(process)
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            yield TypedCommand(tuple(arguments[:-1]), (folder / "cwd").resolve())
        except (OSError, IndexError, ValueError):
            return


def runs_the_program(arguments: tuple[str, ...]) -> bool:
    """Return whether a command is the Pulumi CLI, about to preview or to apply a program."""
    return bool(arguments) and Path(arguments[0]).name == "pulumi" and not _OPERATIONS.isdisjoint(arguments[1:])


def applies(command: TypedCommand, pack: Path) -> bool:
    """Return whether a command names the policy pack in a folder."""
    following = zip(command.arguments, (*command.arguments[1:], ""), strict=True)
    named = [
        after if argument == _OPTION else argument.partition("=")[2]
        for argument, after in following
        if argument.partition("=")[0] == _OPTION
    ]
    return any((command.folder / path).resolve() == pack.resolve() for value in named for path in value.split(","))


def _emulated(endpoint: str) -> bool:
    """Return whether an endpoint of AWS is a server on this machine."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
