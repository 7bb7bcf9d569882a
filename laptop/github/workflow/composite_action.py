"""Read the `action.yml` of a composite action."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from laptop.github.expressions.syntax import Template
from laptop.github.workflow.definition import (
    CompositeAction,
    Input,
)
from laptop.github.workflow.expression_places import (
    ACTION_DEFAULT,
    ACTION_STEP,
    ACTION_STEP_IF,
)
from laptop.github.workflow.step_reading import read_steps
from laptop.github.workflow.workflow_document import WorkflowDocument
from pipelines.declarations.documents import parse_yaml

_ACTION_KEYS = ("name", "description", "author", "branding", "inputs", "outputs", "runs")


def read_action(content: bytes, path: str) -> CompositeAction:
    """Read a composite action.

    Args:
        content: the file.
        path: its path in the repository, named in errors.

    Raises:
        DeclarationError: see `read_workflow`; also for other kinds of actions.
    """
    value, lines = parse_yaml(content, Path(path))
    file = WorkflowDocument(value, lines, Path(path))
    top = file.mapping(value, (), _ACTION_KEYS)
    inputs: list[Input] = []
    keys = ("description", "required", "default", "deprecationMessage")
    for name, item in file.mapping(top.get("inputs") or {}, ("inputs",)).items():
        body = {} if item is None else file.mapping(item, ("inputs", name), keys)
        default = body.get("default")
        parsed = None if default is None else file.template(default, ("inputs", name, "default"), ACTION_DEFAULT)
        inputs.append(Input(name, "string", body.get("required", False) is True, parsed))
    names = tuple(item.name for item in inputs)
    runs = file.mapping(top.get("runs"), ("runs",), ("using", "steps"))
    if runs.get("using") != "composite":
        file.refuse(("runs", "using"), "composite (no other kind is implemented)", runs.get("using"))
    place, place_if = replace(ACTION_STEP, inputs=names), replace(ACTION_STEP_IF, inputs=names)
    steps = read_steps(file, runs.get("steps", []), ("runs", "steps"), place, place_if, shell_needed=True)
    ids = tuple(step.id for step in steps if step.id)
    outputs: dict[str, Template] = {}
    for name, item in file.mapping(top.get("outputs") or {}, ("outputs",)).items():
        body = file.mapping(item, ("outputs", name), ("description", "value"))
        outputs[name] = file.template(body.get("value", ""), ("outputs", name, "value"), replace(place, steps=ids))
    title = file.text(top.get("name", path), ("name",))
    return file.done(CompositeAction(title, tuple(inputs), outputs, steps))
