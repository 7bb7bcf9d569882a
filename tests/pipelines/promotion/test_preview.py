from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.preview import start_preview, summarize
from pipelines.targets import Preview, Target


class PreviewTarget:
    """A target whose previews start together, or fail to start.

    Args:
        together: number of previews that wait for each other.
    """

    def __init__(self, together: int = 1) -> None:
        self._barrier = threading.Barrier(together)

    def preview(self, environment: str) -> Preview:
        if environment == "qa":
            raise MlopsError("unknown environment: qa", fix="choose another")
        self._barrier.wait(10)
        return Preview(f"plan of {environment}", {"same": 1})


def start(target: PreviewTarget, *environments: str) -> list[Any]:
    return [start_preview(cast(Target, target), name) for name in environments]


def test_previews_run_concurrently() -> None:
    dev, prod = start(PreviewTarget(2), "dev", "prod")
    assert (dev().text, prod().text) == ("plan of dev", "plan of prod")


def test_a_preview_that_cannot_start_is_reported_as_failed() -> None:
    (qa,) = start(PreviewTarget(), "qa")
    assert qa() == Preview("unknown environment: qa\n  fix: choose another", {}, "unknown environment: qa")


@pytest.mark.parametrize(
    ("changes", "problem", "summary"),
    [
        ({"same": 75, "update": 2}, "", "2 to update, 75 unchanged"),
        (
            {"refresh": 1, "import": 1, "delete": 1, "replace": 1, "create": 1},
            "",
            "1 to create, 1 to replace, 1 to delete, 1 to import, 1 refresh",
        ),
        ({}, "", "no resources"),
        ({"create": 1}, "2 violations:\n  Key a: gone", "the preview failed: 2 violations: Key a: gone"),
    ],
)
def test_a_preview_is_summarized_in_one_line(changes: dict[str, int], problem: str, summary: str) -> None:
    assert summarize(Preview("", changes, problem)) == summary
