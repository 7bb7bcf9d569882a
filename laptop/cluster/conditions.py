"""The `status.conditions` list that Kubernetes objects carry."""

from __future__ import annotations

from typing import Any

from laptop.cluster.store import now


def is_true(obj: dict[str, Any], type_: str) -> bool:
    """Whether the condition is there and says True."""
    return any(
        condition["type"] == type_ and condition["status"] == "True"
        for condition in (obj.get("status") or {}).get("conditions") or ()
    )


def set_condition(status: dict[str, Any], type_: str, value: bool, reason: str = "", message: str = "") -> None:
    """Sets a condition in place; its transition time changes only when its value does."""
    conditions: list[dict[str, Any]] = status.setdefault("conditions", [])
    old = next((condition for condition in conditions if condition["type"] == type_), None)
    text = "True" if value else "False"
    new = {"type": type_, "status": text, "lastTransitionTime": now()}
    new |= {key: said for key, said in (("reason", reason), ("message", message)) if said}
    if old is None:
        conditions.append(new)
        return
    if old["status"] == text:
        new["lastTransitionTime"] = old["lastTransitionTime"]
    if new != old:
        old.clear()
        old.update(new)
