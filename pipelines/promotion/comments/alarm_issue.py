"""The GitHub issue in which a monitor asks people to decide."""

from __future__ import annotations

from pipelines.declarations.digests import digest_of_value
from pipelines.declarations.markdown import escape, link, short_digest
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.github.issues import ALARM_LABEL, Issue, raise_issue
from pipelines.monitoring.alarm import Alarm
from pipelines.promotion.alarm_report import AlarmReport

LARGEST = 60_000
"""Size limit of the text, in bytes. GitHub accepts 65,536 characters."""

RUNBOOK = "docs/on-call.md"

_OTHER = "breach"
"""Subject of an alarm that names no check."""


def ask_people(project: Project, gh: Gh, alarm: Alarm, alarm_id: str, run: str, found: AlarmReport) -> list[Issue]:
    """Open an issue for each check of an alarm, or comment on the open one.

    Args:
        project: the repository.
        gh: the repository on GitHub.
        alarm: the alarm.
        alarm_id: its identity: an alarm that arrives twice adds nothing.
        run: URL of the workflow run; "" outside a workflow.
        found: the report that the alarm names.

    Raises:
        MlopsError: GitHub refused.
    """
    owner = project.model(alarm.model).owner
    return [
        raise_issue(
            gh,
            f"<!-- mlops:alarm {alarm.model} {alarm.environment} {check} -->",
            f"{alarm.model} in {alarm.environment}: {check}",
            render_question(alarm, check, owner, alarm_id, run, found),
            [ALARM_LABEL],
            once=_once(alarm, alarm_id),
        )
        for check in alarm.checks or (_OTHER,)
    ]


def render_question(alarm: Alarm, check: str, owner: str, alarm_id: str, run: str, found: AlarmReport) -> str:
    """Return the text of an issue about one check of an alarm, with the report; at most `LARGEST` bytes."""
    question = (
        f"{_once(alarm, alarm_id)}\n"
        f"The monitor of **{alarm.model}** in **{alarm.environment}** found: {escape(alarm.reason)}\n\n"
        f"Bundle: `{short_digest(alarm.bundle)}`. Owner: {escape(owner)}. "
        f"Response: {alarm.wanted}{f' ({link(run)})' if run else ''}.\n\n"
        f"What to do: [{RUNBOOK}](../blob/main/{RUNBOOK}#{check}). Close this issue when it is decided. "
        "The next alarm opens a new one.\n\n"
        f"{_where(alarm)}\n\n"
    )
    if found.report is None:
        return f"{question}The report is not shown here: {found.missing}.\n"
    from pipelines.monitoring.report_markdown import report_markdown  # a rollback needs none, and must be fast

    return question + report_markdown(found.report, found.before, LARGEST - len(question.encode()))


def _where(alarm: Alarm) -> str:
    """Say where the report is, and how to open it."""
    about = f"{alarm.model} --kind model --env {alarm.environment}"
    if alarm.report is None:
        return f"The newest report: `mlops monitor show {about}`; with plots: `mlops monitor report {about}`"
    return (
        f"The full report: `mlops monitor show {about} --report {alarm.report} --all`. "
        f"The page with plots: `mlops monitor report {about} --report {alarm.report}` saves "
        f"`monitoring/models/{alarm.model}/{alarm.report}.html` of the logs bucket."
    )


def _once(alarm: Alarm, alarm_id: str) -> str:
    # With what it says: everyone with write access can send another alarm with this id before.
    said = digest_of_value([alarm.wanted, alarm.bundle, alarm.reason]).removeprefix("sha256:")
    return f"<!-- alarm {alarm_id} {said[:12]} -->"
