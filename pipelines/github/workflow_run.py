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


def run_url() -> str:
    """Return the URL of the current workflow run; an empty string outside a workflow."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""


def run_attempt() -> str:
    """Return `<run>.<attempt>` of the current workflow run; an empty string outside a workflow."""
    run = os.environ.get("GITHUB_RUN_ID")
    return f"{run}.{os.environ.get('GITHUB_RUN_ATTEMPT') or '1'}" if run else ""
