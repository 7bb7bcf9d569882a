"""GitHub Actions run metadata, step outputs and summaries."""

from __future__ import annotations

import os
from pathlib import Path


def set_output(name: str, value: str) -> None:
    """Set an output of the current workflow step; do nothing outside a workflow."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def add_summary(text: str) -> None:
    """Add Markdown to the summary of the current workflow run; do nothing outside a workflow."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def add_path(folder: Path) -> None:
    """Put a folder in front of PATH for this process and for later steps of the job."""
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    path = os.environ.get("GITHUB_PATH")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{folder}\n")


def set_variable(name: str, value: str) -> None:
    """Set an environment variable for later steps of the job; do nothing outside a workflow."""
    path = os.environ.get("GITHUB_ENV")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def run_url() -> str:
    """Return the URL of the current workflow run; an empty string outside a workflow."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""
