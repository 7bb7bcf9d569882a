"""The `status.conditions` list of Kubernetes objects."""

from __future__ import annotations

from typing import Any

from laptop.cluster.objects import now


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
