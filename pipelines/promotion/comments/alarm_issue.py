"""The GitHub issue in which a monitor asks people to decide."""

from __future__ import annotations

from pipelines.declarations.digests import digest_of_value
from pipelines.declarations.markdown import escape, link, short_digest
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.github.issues import ALARM_LABEL, Issue, raise_issue
from pipelines.monitoring.alarm import Alarm

RUNBOOK = "docs/on-call.md"

_OTHER = "breach"
"""Subject of an alarm that names no check."""


def ask_people(project: Project, gh: Gh, alarm: Alarm, alarm_id: str, run: str) -> list[Issue]:
    """Open an issue for each check of an alarm, or comment on the open one.

    Args:
        project: the repository.
        gh: the repository on GitHub.
        alarm: the alarm.
        alarm_id: its identity: an alarm that arrives twice adds nothing.
        run: URL of the workflow run; "" outside a workflow.

    Raises:
        MlopsError: GitHub refused.
    """
    owner = project.model(alarm.model).owner
    return [
        raise_issue(
            gh,
            f"<!-- mlops:alarm {alarm.model} {alarm.environment} {check} -->",
            f"{alarm.model} in {alarm.environment}: {check}",
            render_question(alarm, check, owner, alarm_id, run),
            [ALARM_LABEL],
            once=_once(alarm, alarm_id),
        )
        for check in alarm.checks or (_OTHER,)
    ]


def render_question(alarm: Alarm, check: str, owner: str, alarm_id: str, run: str) -> str:
    """Return the text of an issue about one check of an alarm."""
    shown = ""
    if alarm.report:
        shown = (
            f"The report: `mlops monitor show {alarm.model} --env {alarm.environment} --report {alarm.report}`, "
            f"or the page: `mlops monitor report {alarm.model} --env {alarm.environment} --report {alarm.report}`\n\n"
        )
    return (
        f"{_once(alarm, alarm_id)}\n"
        f"The monitor of **{alarm.model}** in **{alarm.environment}** found: {escape(alarm.reason)}\n\n"
        f"Bundle: `{short_digest(alarm.bundle)}`. Owner: {escape(owner)}. "
        f"Response: {alarm.wanted}{f' ({link(run)})' if run else ''}.\n\n"
        f"{shown}"
        f"What to do: [{RUNBOOK}](../blob/main/{RUNBOOK}#{check}). Close this issue when it is decided. "
        "The next alarm opens a new one.\n"
    )


def _once(alarm: Alarm, alarm_id: str) -> str:
    # With what it says: everyone with write access can send another alarm with this id before.
    said = digest_of_value([alarm.wanted, alarm.bundle, alarm.reason]).removeprefix("sha256:")
    return f"<!-- alarm {alarm_id} {said[:12]} -->"
