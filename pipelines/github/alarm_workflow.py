"""Environments that the workflow `respond` answers alarms of.

GitHub enters the environment of a job before any step could check that it is declared, and creates an unknown one
without protection rules. So the workflow lists the environments: each that is declared, and no other.
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
    """Return the workflow with these environments in its list. Those that are listed already keep their order.

    Args:
        text: the present content of the workflow.
        environments: names of the declared environments.

    Raises:
        MlopsError: the workflow has no list of environments.
    """
    found, listed = _find_list(text)
    return text[: found.start(1)] + json.dumps(_in_order(listed, environments)) + text[found.end(1) :]


def only_lists_environments(before: str, after: str) -> bool:
    """Return whether a change of the workflow changes the names in its list, and nothing else."""
    try:
        (old, _), (new, _) = _find_list(before), _find_list(after)
    except MlopsError:
        return False
    around = [text[: at.start(1)] + text[at.end(1) :] for text, at in ((before, old), (after, new))]
    return around[0] == around[1]


def check_alarm_workflow(project: Project) -> None:
    """Check that the workflow lists the declared environments only. A repository without the file is not checked.

    Raises:
        MlopsError: an alarm of an environment would be refused, or would create one that was removed.
    """
    file = project.root / RESPOND
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    found, listed = _find_list(text)
    wanted = _in_order(listed, project.environments)
    missing = [name for name in wanted if name not in listed]
    gone = [name for name in listed if name not in wanted]
    expected = []
    if missing:
        expected.append(f"{' and '.join(missing)} in the list of environments whose alarms are answered")
    if gone:
        expected.append(f"no undeclared environment in the list, such as {gone[0]}: GitHub would create it")
    if expected:
        line = text.count("\n", 0, found.start()) + 1
        fix = f"write '{json.dumps(wanted)}'"
        raise MlopsError(str(Problem(RESPOND, line, "", "; ".join(expected), f"'{found[1]}'", fix)))


def write_alarm_environments(project: Project) -> bool:
    """Write the declared environments into the workflow's list, and return whether the file changed.

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


def _in_order(listed: list[str], environments: tuple[str, ...]) -> list[str]:
    kept = [name for name in dict.fromkeys(listed) if name in environments]
    return [*kept, *(name for name in environments if name not in kept)]


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
