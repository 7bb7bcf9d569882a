"""Read the `on` section of a workflow file."""

from __future__ import annotations

import re
from typing import Any

from laptop.github.expressions.syntax import Literal, Template
from laptop.github.workflow.definition import (
    EVENTS,
    PULL_REQUEST_TYPES,
    Input,
    Trigger,
)
from laptop.github.workflow.filters import Patterns, compile_pattern
from laptop.github.workflow.workflow_document import WorkflowDocument
from pipelines.declarations.documents import Key

_INPUT_KEYS = ("description", "required", "default", "type", "options", "deprecationMessage")


def read_triggers(file: WorkflowDocument, value: Any, key: Key) -> dict[str, Trigger]:
    """Return event → trigger."""
    if isinstance(value, str | list):
        names = dict.fromkeys(file.texts(value, key))
        keys = dict.fromkeys(names, key)
    else:
        names = file.mapping(value, key)
        keys = {name: (*key, name) for name in names}
    triggers: dict[str, Trigger] = {}
    for name, body in names.items():
        if name not in EVENTS:
            fix = "it runs with the repository's secrets on code from forks" if name == "pull_request_target" else ""
            file.refuse(keys[name], f"one of {', '.join(EVENTS)}", f"the event {name!r}", fix)
        elif name == "schedule":
            triggers[name] = _schedule(file, body, keys[name])
        else:
            triggers[name] = _trigger(file, name, body, keys[name])
    return triggers


def _trigger(file: WorkflowDocument, event: str, value: Any, key: Key) -> Trigger:
    known = {
        "push": ("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore"),
        "pull_request": ("types", "branches", "branches-ignore", "paths", "paths-ignore"),
        "merge_group": ("types", "branches", "branches-ignore"),
        "workflow_dispatch": ("inputs",),
        "repository_dispatch": ("types",),
    }[event]
    body = {} if value is None else file.mapping(value, key, known)
    types = file.texts(body["types"], (*key, "types")) if "types" in body else ()
    if event == "pull_request":
        for kind in types:
            if kind not in PULL_REQUEST_TYPES:
                file.refuse((*key, "types"), f"any of {', '.join(PULL_REQUEST_TYPES)}", repr(kind))
        types = types or ("opened", "synchronize", "reopened")
    return Trigger(
        event,
        types=types,
        branches=_patterns(file, body, key, "branches"),
        tags=_patterns(file, body, key, "tags"),
        paths=_patterns(file, body, key, "paths"),
        inputs=_inputs(file, body.get("inputs") or {}, (*key, "inputs")),
    )


def _patterns(file: WorkflowDocument, body: dict[str, Any], key: Key, name: str) -> Patterns | None:
    ignored = f"{name}-ignore"
    if name in body and ignored in body:
        file.refuse((*key, ignored), f"either {name!r} or {ignored!r}", "both", "use '!' patterns under the first")
    chosen = name if name in body else ignored
    if chosen not in body:
        return None
    patterns = file.texts(body[chosen], (*key, chosen))
    for pattern in patterns:
        try:
            compile_pattern(pattern.removeprefix("!"))
        except ValueError as error:
            file.refuse((*key, chosen), "a filter pattern", f"{pattern!r}: {error}")
    if patterns and all(pattern.startswith("!") for pattern in patterns):
        file.refuse((*key, chosen), "at least one pattern without '!'", "only '!' patterns", f"use {ignored!r}")
    return Patterns(patterns, ignore=chosen == ignored)


def _schedule(file: WorkflowDocument, value: Any, key: Key) -> Trigger:
    crons: list[str] = []
    for at, item in enumerate(file.sequence(value, key)):
        body = file.mapping(item, (*key, at), ("cron",))
        cron = file.text(body.get("cron"), (*key, at, "cron"))
        if not re.fullmatch(r"[0-9*/,A-Za-z-]+(?: +[0-9*/,A-Za-z-]+){4}", cron):
            file.refuse((*key, at, "cron"), "five fields: minute, hour, day, month, day of the week", repr(cron))
        crons.append(cron)
    return Trigger("schedule", crons=tuple(crons))


def _inputs(file: WorkflowDocument, value: Any, key: Key) -> tuple[Input, ...]:
    result: list[Input] = []
    for name, item in file.mapping(value, key).items():
        at = (*key, name)
        body = {} if item is None else file.mapping(item, at, _INPUT_KEYS)
        kind = file.text(body.get("type", "string"), (*at, "type"))
        if kind not in ("string", "boolean", "number", "choice", "environment"):
            file.refuse((*at, "type"), "string, boolean, number, choice or environment", repr(kind))
        options = file.texts(body["options"], (*at, "options")) if "options" in body else ()
        if (kind == "choice") != bool(options):
            file.refuse(at, "options if, and only if, the type is choice", f"type {kind}, {len(options)} options")
        default = body.get("default")
        if isinstance(default, str) and "${{" in default:
            file.refuse((*at, "default"), "a plain value", default)
        written = None if default is None else Template(str(default), (Literal(default),))
        result.append(Input(name, kind, body.get("required", False) is True, written, options))
    return tuple(result)
