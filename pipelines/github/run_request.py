"""Time at which the current workflow run was requested."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh


def requested_at(root: Path) -> datetime | None:
    """Return when the current workflow run was requested: it may have waited for other runs or for an approval.

    Args:
        root: a clone of the repository.

    Returns:
        None outside a workflow, or if GitHub does not say. An outage is not waited for.
    """
    run = os.environ.get("GITHUB_RUN_ID")
    if not run:
        return None
    try:
        gh = Gh.find(root)
        found = datetime.fromisoformat(
            json.loads(gh.run("api", f"repos/{gh.repository}/actions/runs/{run}/attempts/1"))["created_at"]
        )
    except (MlopsError, ValueError, KeyError, TypeError):
        return None
    return found if found.tzinfo is not None else None
