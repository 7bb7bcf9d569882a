"""GitHub Actions run metadata and step outputs."""

from __future__ import annotations

import os
from pathlib import Path


def set_output(name: str, value: str) -> None:
    """Set an output of the current workflow step; do nothing outside a workflow."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def run_url() -> str:
    """Return the URL of the current workflow run; an empty string outside a workflow."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""
