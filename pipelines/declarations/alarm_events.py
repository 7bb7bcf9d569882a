"""Alarms of monitors as events on the account's default EventBridge bus, and the names of what delivers them."""

from __future__ import annotations

from typing import Final

ALARM_EVENT: Final = "alarm"
"""Detail type of the events, and type of the `repository_dispatch` event that an event becomes on GitHub."""

NO_TOKEN: Final = "not set"  # noqa: S105 - what is there before a token is set
"""Value of the connection until a person sets the token."""


def alarm_source(prefix: str, model: str) -> str:
    """Return the source of the events of a model's monitor. Only that monitor's role may use it.

    Args:
        prefix: name prefix of the environment's resources, `<project>-<environment>`.
        model: the model's name.
    """
    return f"{prefix}.monitor.{model}"


def alarm_rule(model: str) -> str:
    """Return the last part of the name of the rule for a model's alarms."""
    return f"alarm-{model}"


def connection_name(prefix: str) -> str:
    """Return the name of an environment's connection to GitHub, and of its API destination."""
    return f"{prefix}-github"


def undelivered_queue(prefix: str) -> str:
    """Return the name of the queue with an environment's alarms that did not reach GitHub, and of its alarm."""
    return f"{prefix}-undelivered-alarms"
