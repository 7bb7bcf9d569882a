"""Read a workflow file. Anything that the runner does not implement is an error."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from laptop.github.workflow.definition import (
    Workflow,
)
from laptop.github.workflow.expression_places import (
    RUN_NAME,
    WORKFLOW_ENV,
    place_of,
)
from laptop.github.workflow.job_reading import read_concurrency, read_defaults, read_jobs, read_permissions
from laptop.github.workflow.trigger_reading import read_triggers
from laptop.github.workflow.workflow_document import WorkflowDocument
from pipelines.declarations.documents import parse_yaml

_WORKFLOW_KEYS = ("name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs")


@functools.lru_cache(maxsize=256)
def read_workflow(content: bytes, path: str) -> Workflow:
    """Read a workflow file. The result is cached.

    Args:
        content: the file as committed.
        path: its path in the repository, named in errors.

    Raises:
        DeclarationError: the file is invalid, or uses something that the runner does not implement. Problems name file,
            line and key.
    """
    value, lines = parse_yaml(content, Path(path))
    file = WorkflowDocument(value, lines, Path(path))
    top = file.mapping(value, (), _WORKFLOW_KEYS)
    for required in ("on", "jobs"):
        if required not in top:
            file.refuse((), f"the key {required!r}", "nothing")
    triggers = read_triggers(file, top.get("on"), ("on",)) if "on" in top else {}
    inputs = triggers["workflow_dispatch"].inputs if "workflow_dispatch" in triggers else ()
    names = frozenset(item.name for item in inputs)
    run_name = None
    if "run-name" in top:
        run_name = file.template(top["run-name"], ("run-name",), replace(RUN_NAME, inputs=names))
    workflow = Workflow(
        path=path,
        name=file.text(top["name"], ("name",)) if "name" in top else path,
        run_name=run_name,
        triggers=triggers,
        permissions=read_permissions(file, top["permissions"], ("permissions",)) if "permissions" in top else None,
        env=file.templates(top.get("env", {}), ("env",), replace(WORKFLOW_ENV, inputs=names)),
        defaults=read_defaults(file, top.get("defaults"), ("defaults",), place_of("")),
        concurrency=read_concurrency(file, top.get("concurrency"), ("concurrency",), replace(RUN_NAME, inputs=names)),
        jobs=read_jobs(file, top.get("jobs", {}), names),
    )
    return file.done(workflow)
