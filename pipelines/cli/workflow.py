"""What a workflow run says of itself, and how a command gives values to the steps that follow."""

from __future__ import annotations

import os
from pathlib import Path

import click


def set_output(name: str, value: str) -> None:
    """Give a value to the steps that follow in a workflow, and show it."""
    output = os.environ.get("GITHUB_OUTPUT")
    if output:
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")
    click.echo(f"{name}: {value}")


def run_link() -> str:
    """The workflow run that this is part of; empty outside of one."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""
