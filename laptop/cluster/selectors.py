"""Label and field selectors of list requests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from laptop.cluster.kinds import Kind
from laptop.cluster.refusals import bad_request

Object = dict[str, Any]

_TERM = re.compile(
    r"\s*(?:(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|(?P<set_key>[\w./-]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<absent>!)?\s*(?P<exists>[\w./-]+))\s*(?:,|$)"
)


def label_selector(text: str) -> Callable[[Object], bool]:
    """Parse a label selector (`a=b,c!=d,e in (f,g),h,!i`) into a predicate.

    Raises:
        StatusError: 400, the text is not a label selector.
    """
    tests: list[Callable[[dict[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise bad_request(f"unable to parse label selector {text!r}")
        tests.append(_test(match))
        position = match.end()
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def selector_text(selector: dict[str, Any]) -> str:
    """Return the `matchLabels` of a workload's selector as text: `a=b,c=d`."""
    return ",".join(f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items())


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether labels match a `LabelSelector`."""
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for term in selector.get("matchExpressions") or ():
        key, values, operator = term.get("key"), term.get("values") or (), term.get("operator")
        if operator == "In" and labels.get(key) not in values:
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator in ("Exists", "DoesNotExist") and (key in labels) != (operator == "Exists"):
            return False
    return True


def _test(match: re.Match[str]) -> Callable[[dict[str, str]], bool]:
    if match["key"]:
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match["set_key"]:
        key, values = match["set_key"], {item.strip() for item in match["values"].split(",")}
        if match["set_op"] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    key, absent = match["exists"], bool(match["absent"])
    return lambda labels: (key in labels) != absent


_SELECTABLE = {
    "Event": {
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    },
    "Job": {"status.successful"},
    "Namespace": {"status.phase"},
    "Node": {"spec.unschedulable"},
    "Pod": {
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    },
    "ReplicaSet": {"status.replicas"},
    "Secret": {"type"},
    "Service": {"spec.clusterIP", "spec.type"},
}
"""Fields that a list can be narrowed by, in addition to name and namespace."""


def field_selector(kind: Kind, text: str) -> Callable[[Object], bool]:
    """Parse a field selector (`metadata.name=x,status.phase!=Running`) into a predicate.

    Raises:
        StatusError: 400, the text is not a field selector.
    """
    tests: list[tuple[list[str], str, bool]] = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*([\w.]+)\s*(==|=|!=)\s*(\S*)\s*", term)
        if match is None:
            raise bad_request(f"unable to parse field selector {text!r}")
        if match[1] not in ("metadata.name", "metadata.namespace") and match[1] not in _SELECTABLE.get(kind.name, ()):
            raise bad_request(f"field label not supported: {match[1]}")
        tests.append((match[1].split("."), match[3], match[2] != "!="))
    return lambda obj: all((_at(obj, path) == value) is equal for path, value, equal in tests)


def _at(obj: Any, path: list[str]) -> str:
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)
