"""Workflow dispatch: find the workflow, and check its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laptop.github.expressions.evaluator import EvaluationScope, render
from laptop.github.expressions.loose_values import to_text
from laptop.github.forge.actors import RequestDeniedError
from laptop.github.workflow.definition import Input, Workflow
from laptop.github.workflow.workflow_file import read_workflow


def find_workflow(files: Mapping[str, bytes], wanted: str) -> Workflow:
    """Return the workflow with a file name, path or `name`.

    Args:
        files: path → content of the workflow files.
        wanted: the file name, path or `name`.

    Raises:
        RequestDeniedError: there is no such workflow (404), or it has no `workflow_dispatch` (422).
        DeclarationError: the file is not a valid workflow.
    """
    for path, content in files.items():
        if wanted in (path, path.rsplit("/", 1)[-1]) or f"name: {wanted}\n" in content.decode(errors="replace"):
            workflow = read_workflow(content, path)
            if "workflow_dispatch" not in workflow.triggers:
                raise RequestDeniedError(422, f"Workflow does not have 'workflow_dispatch' trigger: {path}")
            return workflow
    raise RequestDeniedError(404, f"could not find any workflows named {wanted}")


def typed_inputs(workflow: Workflow, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the inputs with defaults filled in, as text: the form of `github.event.inputs`.

    Raises:
        RequestDeniedError: an input is unknown or missing, or its value does not fit its type.
    """
    declared = workflow.triggers["workflow_dispatch"].inputs
    if unknown := sorted(set(given) - {item.name for item in declared}):
        raise RequestDeniedError(422, f"Unexpected inputs provided: {unknown}")
    values: dict[str, Any] = {}
    for item in declared:
        value = given.get(item.name)
        if value is None and item.default is not None:
            value = to_text(render(item.default, EvaluationScope({}, {})))
        if value is None and item.required:
            raise RequestDeniedError(422, f"Required input '{item.name}' not provided")
        value = value if value is not None else ("false" if item.kind == "boolean" else "")
        _check(item, value)
        values[item.name] = value
    return values


def _check(item: Input, value: str) -> None:
    if item.kind == "choice" and value not in item.options:
        raise RequestDeniedError(
            422, f"Provided value '{value}' for input '{item.name}' not in the list of allowed values"
        )
    if item.kind == "boolean" and value not in ("true", "false"):
        raise RequestDeniedError(422, f"Provided value '{value}' for input '{item.name}' is not a boolean")
    if item.kind == "number":
        try:
            float(value)
        except ValueError:
            raise RequestDeniedError(422, f"Provided value '{value}' for input '{item.name}' is not a number") from None
