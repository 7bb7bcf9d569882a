"""Options that several commands share, and how they print."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.declarations.errors import MlopsError
from pipelines.targets import default_target, open_target, target_names

__all__ = ["environment_option", "log", "open_target", "save", "target_option", "timed_log", "write_output"]


class _TargetType(click.ParamType[str]):
    """Name of an installed target; checked when a command runs, so that `--help` stays fast."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = target_names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}", param, ctx)
        return str(value)


target_option = click.option(
    "--target",
    type=_TargetType(),
    default=default_target,
    metavar="NAME",
    help="Where environments live: aws or laptop. [env: MLOPS_TARGET; default: laptop if installed]",
)

environment_option = click.option(
    "--env", "environment", required=True, metavar="NAME", help="Environment: dev, staging, prod, …"
)


def log(text: str) -> None:
    """Print a line of progress."""
    click.echo(f"  {text}")


def timed_log() -> Callable[[str], None]:
    """Return a function that prints a line of progress with the seconds since now."""
    began = time.monotonic()
    return lambda text: click.echo(f"  {time.monotonic() - began:5.2f} s  {text}")


def save(content: bytes, path: Path) -> None:
    """Write a command's output to a file, and print its path.

    Raises:
        MlopsError: it cannot be written.
    """
    from pipelines.declarations.atomic_files import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise MlopsError(
            f"{path} cannot be written: {error.strerror or error}", fix="choose another --output"
        ) from None
    click.echo(f"wrote {path}")


def record_output(name: str, value: str) -> None:
    """Set and print an output of the current workflow step; do nothing outside a workflow.

    For commands that also say it in words.
    """
    if os.environ.get("GITHUB_OUTPUT"):
        write_output(name, value)


def write_output(name: str, value: str) -> None:
    """Set an output of the current workflow step, and print it."""
    from pipelines.github.workflow_run import set_output

    set_output(name, value)
    click.echo(f"{name}: {value}")
