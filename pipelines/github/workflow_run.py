"""GitHub Actions run metadata, step outputs and summaries."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from pipelines.declarations.errors import MlopsError

_SUPPORTED_SERVERS = re.compile(r"https?://(github\.com|[a-z0-9-]+\.ghe\.com|([a-z0-9-]+\.)*localhost(:\d+)?)/?")
"""GitHub, GitHub Enterprise Cloud with data residency, and a server on this machine."""


def refuse_enterprise_server() -> None:
    """Do nothing unless this is a workflow on GitHub Enterprise Server, whose Actions lack what the workflows use.

    Raises:
        MlopsError: it is one.
    """
    server = os.environ.get("GITHUB_SERVER_URL", "")
    if server and not _SUPPORTED_SERVERS.fullmatch(server):
        raise MlopsError(
            f"GitHub Enterprise Server is not supported: expected a workflow on github.com or ghe.com, found {server}",
            fix="see docs/repository-settings.md#github-enterprise-server for what the workflows need",
        )


def stop_commands() -> None:
    """Keep the runner from acting on what this step prints from now on; do nothing outside a workflow.

    Steps print texts of others: reasons, names of objects, answers of servers, the output of Pulumi. A line that is a
    workflow command could set the outputs of the step, hide words in the log, or show an error that never was.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::stop-commands::{os.urandom(16).hex()}", file=sys.stderr, flush=True)


def set_output(name: str, value: str) -> None:
    """Set an output of the current workflow step; do nothing outside a workflow.

    Raises:
        MlopsError: the value has several lines.
    """
    _append("GITHUB_OUTPUT", _line(f"{name}={value}"))


def add_summary(text: str) -> None:
    """Add Markdown to the summary of the current workflow run; do nothing outside a workflow."""
    _append("GITHUB_STEP_SUMMARY", text)


def add_path(folder: Path) -> None:
    """Put a folder in front of PATH for this process and for later steps of the job.

    Raises:
        MlopsError: its name has several lines.
    """
    line = _line(str(folder))
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    _append("GITHUB_PATH", line)


def set_variable(name: str, value: str) -> None:
    """Set an environment variable for this process and for later steps of the job.

    Raises:
        MlopsError: the value has several lines.
    """
    line = _line(f"{name}={value}")
    os.environ[name] = value
    _append("GITHUB_ENV", line)


def _line(text: str) -> str:
    """Return a text that a workflow reads as one line. Otherwise the name of a file could set any output.

    Raises:
        MlopsError: it has line breaks.
    """
    if "\n" in text or "\r" in text:
        raise MlopsError(
            f"for later steps of the workflow: expected one line, found {text!r}",
            fix="rename the file or the object that has a line break in its name",
        )
    return text


def _append(variable: str, text: str) -> None:
    """Append a text and a line break to the file that an environment variable names, if it is set."""
    path = os.environ.get(variable)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def run_url() -> str:
    """Return the URL of the current workflow run; an empty string outside a workflow."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""


def run_attempt() -> str:
    """Return `<run>.<attempt>` of the current workflow run; an empty string outside a workflow."""
    run = os.environ.get("GITHUB_RUN_ID")
    return f"{run}.{os.environ.get('GITHUB_RUN_ATTEMPT') or '1'}" if run else ""
