"""Alarms of monitors as events on the account's default EventBridge bus."""

from __future__ import annotations

from typing import Final

ALARM_EVENT: Final = "alarm"
"""Detail type of the events, and type of the `repository_dispatch` event that an event becomes on GitHub."""


def alarm_source(prefix: str, model: str) -> str:
    """Return the source of the events of a model's monitor. Only that monitor's role may use it.

    Args:
        prefix: name prefix of the environment's resources, `<project>-<environment>`.
        model: the model's name.
    """
    return f"{prefix}.monitor.{model}"
