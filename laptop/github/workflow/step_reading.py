"""Read the `steps` of a job or a composite action."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from laptop.github.expressions.syntax import Template
from laptop.github.workflow.definition import (
    Step,
)
from laptop.github.workflow.expression_places import (
    ExpressionPlace,
)
from laptop.github.workflow.workflow_document import FALSE, ID_PATTERN, WorkflowDocument
from pipelines.declarations.documents import Key

_STEP_KEYS = (
    *("id", "name", "if", "run", "shell", "uses", "with", "env", "working-directory", "timeout-minutes"),
    "continue-on-error",
)
_REMOTE_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+(?:/[A-Za-z0-9._/-]+)?@(?P<ref>[^@\s]+)")


def read_steps(
    file: WorkflowDocument,
    value: Any,
    key: Key,
    place: ExpressionPlace,
    place_if: ExpressionPlace,
    *,
    shell_needed: bool = False,
) -> tuple[Step, ...]:
    """Return the steps of a job or composite action."""
    steps: list[Step] = []
    ids: list[str] = []
    for number, item in enumerate(file.sequence(value, key)):
        at = (*key, number)
        body = file.mapping(item, at, _STEP_KEYS)
        here, here_if = replace(place, steps=tuple(ids)), replace(place_if, steps=tuple(ids))
        step = _step(file, number + 1, body, at, here, here_if)
        if shell_needed and step.run is not None and step.shell is None:
            file.refuse(at, "the key 'shell' (required in a composite action)", "nothing", "add shell: bash")
        if step.id in ids:
            file.refuse((*at, "id"), "an id that no earlier step has", repr(step.id))
        if step.id:
            ids.append(step.id)
        steps.append(step)
    if not steps:
        file.refuse(key, "at least one step", "none")
    return tuple(steps)


def _step(
    file: WorkflowDocument,
    number: int,
    body: dict[str, Any],
    key: Key,
    place: ExpressionPlace,
    place_if: ExpressionPlace,
) -> Step:
    uses = file.text(body["uses"], (*key, "uses")) if "uses" in body else None
    if (uses is None) == ("run" not in body):
        file.refuse(key, "either 'run' or 'uses'", "both" if uses is not None else "neither")
    for name in ("shell", "working-directory") if uses is not None else ("with",):
        if name in body:
            file.refuse((*key, name), f"{name!r} only with {'run' if uses is not None else 'uses'}", repr(body[name]))
    if uses is not None:
        _check_uses(file, uses, (*key, "uses"))
    identity = file.text(body["id"], (*key, "id")) if "id" in body else ""
    if identity and not ID_PATTERN.fullmatch(identity):
        file.refuse((*key, "id"), "an id of letters, digits, '-' and '_'", repr(identity))

    def optional(name: str, kind: str = "") -> Template | None:
        return file.template(body[name], (*key, name), place, kind) if name in body else None

    return Step(
        number=number,
        line=file.line(key),
        id=identity,
        name=optional("name"),
        condition=file.condition(body["if"], (*key, "if"), place_if) if "if" in body else None,
        run=optional("run"),
        shell=read_shell(file, body["shell"], (*key, "shell")) if "shell" in body else None,
        uses=uses,
        inputs=file.templates(body.get("with") or {}, (*key, "with"), place),
        env=file.templates(body.get("env") or {}, (*key, "env"), place),
        working_directory=optional("working-directory"),
        timeout_minutes=optional("timeout-minutes", "number"),
        continue_on_error=optional("continue-on-error", "boolean") or FALSE,
    )


def read_shell(file: WorkflowDocument, value: Any, key: Key) -> str:
    """Return the shell."""
    if value != "bash":
        file.refuse(key, "bash (the only shell that the laptop's runner implements)", value)
    return "bash"


def _check_uses(file: WorkflowDocument, uses: str, key: Key) -> None:
    if uses.startswith("./"):
        if ".." in uses.split("/") or "@" in uses or not uses[2:].strip("/"):
            file.refuse(key, "a folder inside the repository, without a version", uses)
        return
    match = _REMOTE_ACTION.fullmatch(uses)
    if match is None:
        file.refuse(key, "./folder or owner/action@<commit>", uses)
    elif not re.fullmatch(r"[0-9a-f]{40}", match["ref"]):
        fix = "a tag can move to other code: write the commit, and the version in a comment"
        file.refuse(key, "an action pinned by its full commit (40 hexadecimal digits)", uses, fix)
