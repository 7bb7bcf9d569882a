"""Shorten what a model's declaration asks a release to wait."""

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


_SCALED = re.compile(r"(soak: \{[^}]*\bseconds: |\bpause_seconds: |\bwait_seconds: )(\d+)")


def shorten_waits(project: Project) -> None:
    """Shorten the steps of the rollouts and the soak of every model of a project, in its files; no release pauses."""
    for model in project.model_names:
        file = project.models_folder / model / "model.yaml"
        text = file.read_text(encoding="utf-8")
        for pattern, short in _WAITS:
            text = pattern.sub(rf"\g<1>{short}", text)
        file.write_text(text, encoding="utf-8")
    for environment in project.environments:
        # In a second, no step gets the requests that a verdict needs.
        file = project.stack_file(environment)
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("on_inconclusive: pause", "on_inconclusive: continue"), encoding="utf-8")


def scale_waits(project: Project, time_scale: float) -> list[str]:
    """Divide the soak and the traffic steps of every model by a time scale, in the files of a project.

    The cluster scales what it waits for itself. The clocks of the inference log and of the canary check do not run
    faster.

    Args:
        project: the project.
        time_scale: how many times as fast time runs.

    Returns:
        the models whose files have changed.
    """
    changed = []
    for model in project.model_names:
        file = project.model_file(model)
        text = file.read_text(encoding="utf-8")
        scaled = _SCALED.sub(lambda found: f"{found[1]}{max(1, round(int(found[2]) / time_scale))}", text)
        if scaled != text:
            file.write_text(scaled, encoding="utf-8")
            changed.append(model)
    return changed
