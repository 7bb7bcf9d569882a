"""Preview environments in the background, and summarize previews in one line."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipelines.declarations.errors import MlopsError
from pipelines.targets import Preview, Target

_OPERATIONS = {
    "create": "to create",
    "update": "to update",
    "replace": "to replace",
    "delete": "to delete",
    "import": "to import",
    "same": "unchanged",
}
"""Pulumi operations in the order of a summary, and their words."""


def start_preview(target: Target, environment: str) -> Callable[[], Preview]:
    """Start a preview in a thread; return a function that waits for it and returns it.

    A preview that cannot be started is returned as a failed one, so that the comment can show it.
    """
    pool = ThreadPoolExecutor(1)
    result = pool.submit(_preview, target, environment).result
    pool.shutdown(wait=False)
    return result


def _preview(target: Target, environment: str) -> Preview:
    try:
        return target.preview(environment)
    except MlopsError as error:
        return Preview(str(error), problem=error.what)


def summarize(preview: Preview) -> str:
    """Return a preview in one line: `1 to create, 75 unchanged`, or why it failed."""
    if preview.failed:
        return "the preview failed: " + " ".join(preview.problem.split())
    counted = [
        name for name in (*_OPERATIONS, *sorted(preview.changes.keys() - _OPERATIONS)) if name in preview.changes
    ]
    parts = [f"{preview.changes[name]} {_OPERATIONS.get(name, name)}" for name in counted]
    return ", ".join(parts) or "no resources"


def cannot_be_applied(environment: str) -> str:
    """Return why a change is refused whose preview failed."""
    return f"preview: the program of {environment} cannot be applied; see the comment"
