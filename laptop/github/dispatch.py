"""Start a workflow by hand: find it, and give its inputs their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laptop.github.access import RefusedError
from laptop.github.expressions import Scope, render, to_text
from laptop.github.reading import read_workflow
from laptop.github.workflow import Input, Workflow


def find_workflow(files: Mapping[str, bytes], wanted: str) -> Workflow:
    """The workflow with this file name, path or name.

    Raises:
        RefusedError: there is none, or it has no `workflow_dispatch`.
        DeclarationError: the file is not a workflow.
    """
    for path, content in files.items():
        if wanted in (path, path.rsplit("/", 1)[-1]) or f"name: {wanted}\n" in content.decode(errors="replace"):
            workflow = read_workflow(content, path)
            if "workflow_dispatch" not in workflow.triggers:
                raise RefusedError(422, f"Workflow does not have 'workflow_dispatch' trigger: {path}")
            return workflow
    raise RefusedError(404, f"could not find any workflows named {wanted}")


def typed_inputs(workflow: Workflow, given: Mapping[str, str]) -> dict[str, Any]:
    """The inputs with defaults, each a text as in `github.event.inputs`.

    Raises:
        RefusedError: an input is unknown, missing, or has a value that its type does not allow.
    """
    declared = workflow.triggers["workflow_dispatch"].inputs
    if unknown := sorted(set(given) - {item.name for item in declared}):
        raise RefusedError(422, f"Unexpected inputs provided: {unknown}")
    values: dict[str, Any] = {}
    for item in declared:
        value = given.get(item.name)
        if value is None and item.default is not None:
            value = to_text(render(item.default, Scope({}, {})))
        if value is None and item.required:
            raise RefusedError(422, f"Required input '{item.name}' not provided")
        value = value if value is not None else ("false" if item.kind == "boolean" else "")
        _check(item, value)
        values[item.name] = value
    return values


def _check(item: Input, value: str) -> None:
    if item.kind == "choice" and value not in item.options:
        raise RefusedError(422, f"Provided value '{value}' for input '{item.name}' not in the list of allowed values")
    if item.kind == "boolean" and value not in ("true", "false"):
        raise RefusedError(422, f"Provided value '{value}' for input '{item.name}' is not a boolean")
    if item.kind == "number":
        try:
            float(value)
        except ValueError:
            raise RefusedError(422, f"Provided value '{value}' for input '{item.name}' is not a number") from None
