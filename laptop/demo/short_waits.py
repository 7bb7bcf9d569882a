"""Shorten what a model's declaration asks a release to wait, so that a demo or a test ends within minutes."""

from __future__ import annotations

import re

from pipelines.declarations.project import Project

SHORT_SECONDS = 1
SHORT_REQUESTS = 20

_WAITS = (
    (re.compile(r"(pause_seconds: )\d+"), SHORT_SECONDS),
    (re.compile(r"(soak: \{requests: )\d+"), SHORT_REQUESTS),
    (re.compile(r"(soak: \{requests: \d+, seconds: )\d+"), SHORT_SECONDS),
)


def shorten_waits(project: Project) -> None:
    """Shorten the pauses of the rollouts and the soak of every model of a project, in its files."""
    for model in project.model_names:
        file = project.models_folder / model / "model.yaml"
        text = file.read_text(encoding="utf-8")
        for pattern, short in _WAITS:
            text = pattern.sub(rf"\g<1>{short}", text)
        file.write_text(text, encoding="utf-8")
