"""Read the `jobs` section of a workflow file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from laptop.github.expressions.syntax import Template
from laptop.github.workflow.definition import (
    SCOPES,
    Concurrency,
    Defaults,
    DeploymentEnvironment,
    Job,
    Strategy,
    Tree,
)
from laptop.github.workflow.expression_places import (
    JOB,
    JOB_DEFAULTS,
    JOB_ENV,
    JOB_IF,
    JOB_OUTPUTS,
    JOB_URL,
    STEP,
    STEP_IF,
    STRATEGY,
    ExpressionPlace,
)
from laptop.github.workflow.step_reading import read_shell, read_steps
from laptop.github.workflow.workflow_document import FALSE, ID_PATTERN, TRUE, WorkflowDocument
from pipelines.declarations.documents import Key

_JOB_KEYS = (
    *("name", "needs", "if", "runs-on", "environment", "permissions", "outputs", "env", "defaults", "strategy"),
    *("timeout-minutes", "continue-on-error", "concurrency", "steps"),
)


def read_jobs(file: WorkflowDocument, value: Any, inputs: frozenset[str]) -> dict[str, Job]:
    """Return id → job."""
    bodies = {
        name: file.mapping(body, ("jobs", name), _JOB_KEYS) for name, body in file.mapping(value, ("jobs",)).items()
    }
    if not bodies:
        file.refuse(("jobs",), "at least one job", "none")
    needs: dict[str, tuple[str, ...]] = {}
    for name, body in bodies.items():
        if not ID_PATTERN.fullmatch(name):
            file.refuse(("jobs", name), "an id of letters, digits, '-' and '_'", repr(name))
        needs[name] = file.texts(body["needs"], ("jobs", name, "needs")) if "needs" in body else ()
        for needed in needs[name]:
            if needed not in bodies:
                file.refuse(("jobs", name, "needs"), f"one of {', '.join(bodies)}", f"the unknown job {needed!r}")
    _refuse_cycles(file, needs)
    outputs = {
        name: list(body["outputs"]) if isinstance(body.get("outputs"), dict) else [] for name, body in bodies.items()
    }
    return {
        name: _job(file, name, body, needs[name], inputs, {needed: outputs.get(needed, []) for needed in needs[name]})
        for name, body in bodies.items()
    }


def _refuse_cycles(file: WorkflowDocument, needs: Mapping[str, Sequence[str]]) -> None:
    done: set[str] = set()
    while ready := [name for name in needs if name not in done and done.issuperset(set(needs[name]) & set(needs))]:
        done.update(ready)
    for name in needs:
        if name not in done:
            file.refuse(("jobs", name, "needs"), "jobs that do not wait for each other", "a cycle")


def _job(
    file: WorkflowDocument,
    name: str,
    body: dict[str, Any],
    needs: tuple[str, ...],
    inputs: frozenset[str],
    outputs: Mapping[str, Collection[str]],
) -> Job:
    key: Key = ("jobs", name)
    early: dict[str, Any] = {"needs": outputs, "inputs": inputs}
    strategy = None
    if "strategy" in body:
        strategy = _strategy(file, body["strategy"], (*key, "strategy"), replace(STRATEGY, **early))
    axes: Collection[str] | None = ()
    if strategy is not None:
        static = strategy.whole is None and isinstance(strategy.include, list)
        listed = [set(item) for item in strategy.include if isinstance(item, dict)] if static else []
        axes = set(strategy.axes).union(*listed) if static else None
    at: dict[str, Any] = {**early, "matrix": axes}
    job_place = replace(JOB, **at)
    for required in ("runs-on", "steps"):
        if required not in body:
            file.refuse(key, f"the key {required!r}", "nothing")
    steps = read_steps(file, body.get("steps", []), (*key, "steps"), replace(STEP, **at), replace(STEP_IF, **at))
    ids = {step.id for step in steps if step.id}
    runs_on = file.tree(body.get("runs-on", "ubuntu-latest"), (*key, "runs-on"), job_place)
    for label in runs_on if isinstance(runs_on, list) else [runs_on]:
        if not isinstance(label, Template) or (not label.parts and not label.text.startswith("ubuntu-")):
            file.refuse((*key, "runs-on"), "a label ubuntu-…", label.text if isinstance(label, Template) else "a group")
    return Job(
        id=name,
        line=file.line(key),
        name=file.template(body["name"], (*key, "name"), job_place) if "name" in body else None,
        needs=needs,
        condition=file.condition(body["if"], (*key, "if"), replace(JOB_IF, **early)) if "if" in body else None,
        runs_on=runs_on,
        environment=_environment(file, body.get("environment"), (*key, "environment"), job_place, at, ids),
        permissions=read_permissions(file, body["permissions"], (*key, "permissions"))
        if "permissions" in body
        else None,
        outputs=file.templates(body.get("outputs", {}), (*key, "outputs"), replace(JOB_OUTPUTS, **at, steps=ids)),
        env=file.templates(body.get("env", {}), (*key, "env"), replace(JOB_ENV, **at)),
        defaults=read_defaults(file, body.get("defaults"), (*key, "defaults"), replace(JOB_DEFAULTS, **at)),
        strategy=strategy,
        timeout_minutes=file.template(body.get("timeout-minutes", 360), (*key, "timeout-minutes"), job_place, "number"),
        continue_on_error=file.template(
            body.get("continue-on-error", False), (*key, "continue-on-error"), job_place, "boolean"
        ),
        concurrency=read_concurrency(file, body.get("concurrency"), (*key, "concurrency"), job_place),
        steps=steps,
    )


def _environment(
    file: WorkflowDocument, value: Any, key: Key, place: ExpressionPlace, at: Mapping[str, Any], ids: Collection[str]
) -> DeploymentEnvironment | None:
    if value is None:
        return None
    if isinstance(value, str):
        return DeploymentEnvironment(file.template(value, key, place), None, TRUE)
    body = file.mapping(value, key, ("name", "url", "deployment"))
    url = body.get("url")
    return DeploymentEnvironment(
        file.template(body.get("name", ""), (*key, "name"), place),
        None if url is None else file.template(url, (*key, "url"), replace(JOB_URL, **at, steps=ids)),
        file.template(body.get("deployment", True), (*key, "deployment"), place, "boolean"),
    )


def _strategy(file: WorkflowDocument, value: Any, key: Key, place: ExpressionPlace) -> Strategy:
    body = file.mapping(value, key, ("matrix", "fail-fast", "max-parallel"))
    matrix, whole = body.get("matrix"), None
    axes: dict[str, Tree] = {}
    include: Tree = []
    exclude: Tree = []
    if isinstance(matrix, str):
        whole = file.template(matrix, (*key, "matrix"), place)
        if not whole.parts:
            file.refuse((*key, "matrix"), "a mapping or an expression", matrix)
    else:
        for name, item in file.mapping(matrix, (*key, "matrix")).items():
            tree = file.tree(item, (*key, "matrix", name), place)
            if not isinstance(tree, list) and not (isinstance(tree, Template) and tree.parts and isinstance(item, str)):
                file.refuse((*key, "matrix", name), "a list or an expression", item)
            elif name == "include":
                include = tree
            elif name == "exclude":
                exclude = tree
            else:
                axes[name] = tree
    most = body.get("max-parallel")
    return Strategy(
        axes,
        include,
        exclude,
        whole,
        file.template(body.get("fail-fast", True), (*key, "fail-fast"), place, "boolean"),
        None if most is None else file.template(most, (*key, "max-parallel"), place, "number"),
    )


def read_permissions(file: WorkflowDocument, value: Any, key: Key) -> dict[str, str]:
    """Return scope → level."""
    if value in ("read-all", "write-all"):
        level = str(value).removesuffix("-all")
        return {scope: level for scope, levels in SCOPES.items() if level in levels}
    result: dict[str, str] = {}
    for scope, level in file.mapping({} if value is None else value, key, SCOPES).items():
        if level not in SCOPES[scope]:
            file.refuse((*key, scope), f"one of {', '.join(SCOPES[scope])}", level)
        elif level != "none":
            result[scope] = level
    return result


def read_defaults(file: WorkflowDocument, value: Any, key: Key, place: ExpressionPlace) -> Defaults:
    """Return `defaults.run`."""
    body = file.mapping(file.mapping({} if value is None else value, key, ("run",)).get("run", {}), (*key, "run"))
    body = file.mapping(body, (*key, "run"), ("shell", "working-directory"))
    folder = body.get("working-directory")
    return Defaults(
        read_shell(file, body["shell"], (*key, "run", "shell")) if "shell" in body else None,
        None if folder is None else file.template(folder, (*key, "run", "working-directory"), place),
    )


def read_concurrency(file: WorkflowDocument, value: Any, key: Key, place: ExpressionPlace) -> Concurrency | None:
    """Return the concurrency group, or None if there is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return Concurrency(file.template(value, key, place), FALSE, "single")
    body = file.mapping(value, key, ("group", "cancel-in-progress", "queue"))
    if "group" not in body:
        file.refuse(key, "the key 'group'", "nothing")
    queue = body.get("queue", "single")
    if queue not in ("single", "max"):
        file.refuse((*key, "queue"), "single or max", queue)
    if queue == "max" and body.get("cancel-in-progress", False) is not False:
        file.refuse((*key, "queue"), "queue: max without cancel-in-progress", "both")
    cancel = file.template(body.get("cancel-in-progress", False), (*key, "cancel-in-progress"), place, "boolean")
    return Concurrency(file.template(body.get("group", ""), (*key, "group"), place), cancel, str(queue))
