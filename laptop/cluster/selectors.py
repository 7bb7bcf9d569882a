"""Label and field selectors of list requests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from laptop.cluster.refusals import bad_request
from laptop.cluster.store import Object

_TERM = re.compile(
    r"\s*(?:(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|(?P<set_key>[\w./-]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<absent>!)?\s*(?P<exists>[\w./-]+))\s*(?:,|$)"
)


def label_selector(text: str) -> Callable[[Object], bool]:
    """The test that a label selector (`a=b,c!=d,e in (f,g),h,!i`) stands for; raises Refusal (400)."""
    tests: list[Callable[[dict[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise bad_request(f"unable to parse label selector {text!r}")
        tests.append(_test(match))
        position = match.end()
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


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


def field_selector(text: str) -> Callable[[Object], bool]:
    """The test that a field selector (`metadata.name=x,status.phase!=Running`) stands for; raises Refusal (400)."""
    tests: list[tuple[list[str], str, bool]] = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*([\w.]+)\s*(==|=|!=)\s*(\S*)\s*", term)
        if match is None:
            raise bad_request(f"unable to parse field selector {text!r}")
        tests.append((match[1].split("."), match[3], match[2] != "!="))
    return lambda obj: all((_at(obj, path) == value) is equal for path, value, equal in tests)


def _at(obj: Any, path: list[str]) -> str:
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)
