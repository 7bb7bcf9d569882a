"""Decide which workflows an event starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from laptop.github.forge.webhook_event import WebhookEvent
from laptop.github.workflow.definition import Workflow


def is_triggered(workflow: Workflow, event: WebhookEvent, changed: Callable[[], Sequence[str]]) -> bool:
    """Return whether an event starts a workflow.

    Args:
        workflow: the workflow file.
        event: the event.
        changed: returns the paths that the event changes; called only if a filter needs them.
    """
    trigger = workflow.triggers.get(event.name)
    if trigger is None or (event.workflow and event.workflow != workflow.path):
        return False
    if event.name == "schedule":
        return event.action in trigger.crons
    if trigger.types and event.action not in trigger.types:
        return False
    if event.ref.startswith("refs/tags/"):
        if trigger.tags is None:
            return trigger.branches is None
        return trigger.tags.accept(event.ref_name)
    if trigger.branches is None and trigger.tags is not None:
        return False
    if trigger.branches is not None and not trigger.branches.accept(event.branch):
        return False
    return trigger.paths is None or trigger.paths.accept_any(changed())
