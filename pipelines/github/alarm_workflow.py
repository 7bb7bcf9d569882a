"""Environments that the workflow `respond` answers alarms of.

GitHub enters the environment of a job before any step could check that it is declared, and creates an unknown one
without protection rules. So the workflow lists the environments.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError, Problem
from pipelines.declarations.project import Project

RESPOND = Path(".github/workflows/respond.yml")

_LIST = re.compile(r"fromJSON\('(\[[^'\n]*\])'\)")


def with_environments(text: str, environments: tuple[str, ...]) -> str:
    """Return the workflow with each environment in its list. Those that are listed already stay.

    Args:
        text: the present content of the workflow.
        environments: names of the declared environments.

    Raises:
        MlopsError: the workflow has no list of environments.
    """
    found, listed = _find_list(text)
    missing = [name for name in environments if name not in listed]
    return text[: found.start(1)] + json.dumps([*listed, *missing]) + text[found.end(1) :]


def only_adds_environments(before: str, after: str) -> bool:
    """Return whether a change of the workflow adds names to its list, and changes nothing else."""
    try:
        (old, known), (new, listed) = _find_list(before), _find_list(after)
    except MlopsError:
        return False
    around = [text[: at.start(1)] + text[at.end(1) :] for text, at in ((before, old), (after, new))]
    return around[0] == around[1] and set(known) <= set(listed)


def check_alarm_workflow(project: Project) -> None:
    """Check that the workflow lists each declared environment. A repository without the file is not checked.

    Raises:
        MlopsError: an alarm of an environment would be refused.
    """
    file = project.root / RESPOND
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    found, listed = _find_list(text)
    if missing := [name for name in project.environments if name not in listed]:
        expected = f"{' and '.join(missing)} in the list of environments whose alarms are answered"
        line = text.count("\n", 0, found.start()) + 1
        fix = f"write '{json.dumps([*listed, *missing])}'"
        raise MlopsError(str(Problem(RESPOND, line, "", expected, f"'{found[1]}'", fix)))


def write_alarm_environments(project: Project) -> bool:
    """Add the environments that the workflow does not list, and return whether the file changed.

    Raises:
        MlopsError: see `with_environments`.
    """
    file = project.root / RESPOND
    if not file.is_file():
        return False
    before = file.read_text(encoding="utf-8")
    after = with_environments(before, project.environments)
    if after != before:
        write_atomically(file, after)
    return after != before


def _find_list(text: str) -> tuple[re.Match[str], list[str]]:
    """Return where the list is, and its names."""
    found = _LIST.search(text)
    try:
        listed = json.loads(found[1]) if found else None
    except ValueError:
        listed = None
    if found is None or not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise MlopsError(
            f"{RESPOND}: expected a condition with fromJSON('[\"dev\"]') that lists the environments; found none",
            fix="take the condition of the job respond from the template",
        )
    return found, listed
