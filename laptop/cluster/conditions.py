"""The `status.conditions` list of Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from laptop.cluster.objects import now

Condition = dict[str, Any]


def is_true(obj: dict[str, Any], type_: str) -> bool:
    """Return whether a condition is True."""
    return any(
        condition["type"] == type_ and condition["status"] == "True"
        for condition in (obj.get("status") or {}).get("conditions") or ()
    )


def set_condition(status: dict[str, Any], type_: str, value: bool, reason: str = "", message: str = "") -> None:
    """Set a condition in place. Its transition time changes only if its value does."""
    conditions: list[dict[str, Any]] = status.setdefault("conditions", [])
    old = next((condition for condition in conditions if condition["type"] == type_), None)
    state = "True" if value else "False"
    new = {"type": type_, "status": state, "lastTransitionTime": now()}
    new |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
    if old is None:
        conditions.append(new)
        return
    if old["status"] == state:
        new["lastTransitionTime"] = old["lastTransitionTime"]
    if new != old:
        old.clear()
        old.update(new)


def condition_of(status: Mapping[str, Any], type_: str) -> Condition | None:
    """Return a condition, or None."""
    return next((item for item in status.get("conditions") or () if item["type"] == type_), None)


def set_timed_condition(
    status: dict[str, Any], type_: str, value: str, reason: str, message: str, now: datetime, *, again: bool = False
) -> bool:
    """Set a condition with the time of its last change, unless its value and reason are the same. Return if it changed.

    Deployments and Rollouts have such conditions; the time counts for their progress deadline.

    Args:
        status: status to change.
        type_: type of the condition.
        value: True, False or Unknown.
        reason: reason, one word.
        message: text for people.
        now: time of the change.
        again: set it even if it is the same, which updates its time.
    """
    old = condition_of(status, type_)
    if old is not None and (old["status"], old.get("reason")) == (value, reason) and not again:
        return False
    at = _text(now)
    since = old["lastTransitionTime"] if old is not None and old["status"] == value else at
    new = {"type": type_, "status": value, "reason": reason, "message": message}
    new |= {"lastUpdateTime": at, "lastTransitionTime": since}
    remove_condition(status, type_)
    status["conditions"] = [*(status.get("conditions") or ()), new]
    return True


def remove_condition(status: dict[str, Any], type_: str) -> None:
    """Remove a condition in place, if it is there."""
    status["conditions"] = [item for item in status.get("conditions") or () if item["type"] != type_]


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
