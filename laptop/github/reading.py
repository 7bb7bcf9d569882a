"""Read a workflow file or a composite action. What the runner does not know is refused, never ignored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from laptop.github.expressions import (
    STATUS_FUNCTIONS,
    Context,
    ExpressionError,
    Index,
    Literal,
    Node,
    Template,
    check_names,
    condition,
    template,
    walk,
)
from laptop.github.filters import Patterns, compile_pattern
from laptop.github.workflow import (
    EVENTS,
    GITHUB_PROPERTIES,
    PULL_REQUEST_TYPES,
    SCOPES,
    CompositeAction,
    Concurrency,
    Defaults,
    Environment,
    Input,
    Job,
    Step,
    Strategy,
    Tree,
    Trigger,
    Workflow,
)
from pipelines.declarations.documents import Key, Lines, dotted, parse_yaml
from pipelines.declarations.errors import DeclarationError, Problem

# --- where which context is available (GitHub's "Context availability") -----------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where an expression stands, and what may be named there. None means that the names are not known beforehand."""

    contexts: frozenset[str]
    functions: frozenset[str] = frozenset()
    needs: Mapping[str, Collection[str]] | None = None  # job → its outputs
    steps: Collection[str] | None = None
    inputs: Collection[str] | None = None
    matrix: Collection[str] | None = None


def _place(contexts: str, functions: Collection[str] = ()) -> _Place:
    return _Place(frozenset(contexts.split()), frozenset(functions))


_RUN_NAME = _place("github inputs vars")
_WORKFLOW_ENV = _place("github secrets inputs vars")
_JOB_IF = _place("github needs vars inputs", STATUS_FUNCTIONS)
_STRATEGY = _place("github needs vars inputs")
_JOB = _place("github needs strategy matrix vars inputs")
_JOB_ENV = _place("github needs strategy matrix vars secrets inputs")
_JOB_DEFAULTS = _place("github needs strategy matrix env vars inputs")
_JOB_URL = _place("github needs strategy matrix job runner env vars steps inputs")
_JOB_OUTPUTS = _place("github needs strategy matrix job runner env vars secrets steps inputs")
_STEP = replace(_JOB_OUTPUTS, functions=frozenset({"hashfiles"}))
_STEP_IF = replace(_JOB_URL, functions=frozenset({"hashfiles", *STATUS_FUNCTIONS}))
_ACTION_STEP = _place("github strategy matrix job runner env steps inputs vars", {"hashfiles"})
_ACTION_STEP_IF = replace(_ACTION_STEP, functions=_STEP_IF.functions)
_ACTION_DEFAULT = _place("github strategy matrix job runner", {"hashfiles"})

T = TypeVar("T")


class _File:
    """The document with its lines, and the problems found so far."""

    def __init__(self, value: Any, lines: Lines, path: Path) -> None:
        self.value = value
        self.lines = lines
        self.path = path
        self.problems: list[Problem] = []

    def line(self, key: Key) -> int:
        return next(self.lines[key[:end]] for end in range(len(key), -1, -1) if key[:end] in self.lines)

    def refuse(self, key: Key, expected: str, found: object, fix: str = "") -> None:
        text = found if isinstance(found, str) else _shown(found)
        self.problems.append(Problem(self.path, self.line(key), dotted(key), expected, text, fix))

    def done(self, result: T) -> T:
        if self.problems:
            raise DeclarationError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return result

    def mapping(self, value: Any, key: Key, known: Collection[str] | None = None) -> dict[str, Any]:
        """`value` as keys and values; keys outside `known` are refused."""
        if not isinstance(value, dict):
            self.refuse(key, "keys and values", value)
            return {}
        for name in value:
            if known is not None and name not in known:
                close = difflib.get_close_matches(name, list(known), n=1)
                fix = f"did you mean {close[0]!r}?" if close else "the laptop's runner does not know it; remove it"
                self.refuse((*key, name), f"one of {', '.join(sorted(known))}", f"the unknown key {name!r}", fix)
        return {name: item for name, item in value.items() if known is None or name in known}

    def sequence(self, value: Any, key: Key) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(key, "a list", value)
            return []
        return value

    def text(self, value: Any, key: Key) -> str:
        """A text without expressions."""
        if not isinstance(value, str):
            if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value)
            self.refuse(key, "a text", value)
            return ""
        if "${{" in value:
            self.refuse(key, "a text without an expression", value)
        return value

    def texts(self, value: Any, key: Key) -> tuple[str, ...]:
        """One text or a list of them."""
        if isinstance(value, str):
            return (self.text(value, key),)
        return tuple(self.text(item, (*key, at)) for at, item in enumerate(self.sequence(value, key)))

    def template(self, value: Any, key: Key, place: _Place, kind: str = "") -> Template:
        """A value that may hold expressions; a literal must be of `kind` ("text", "boolean", "number" or any)."""
        if isinstance(value, str):
            try:
                parsed = template(value)
                for node in parsed.expressions:
                    self.check(node, place)
            except ExpressionError as error:
                self.refuse(key, "a valid expression", error.what, error.fix)
                return Template("", ())
            if not parsed.parts and kind in ("boolean", "number"):
                self.refuse(key, f"a {kind} or an expression", value)
            return parsed
        found = "boolean" if isinstance(value, bool) else ("number" if isinstance(value, int | float) else "")
        if (value is not None and not found) or (kind in ("boolean", "number") and found != kind):
            self.refuse(key, f"a {kind or 'text'} or an expression", value)
        return Template(str(value), (Literal(value),))

    def templates(self, value: Any, key: Key, place: _Place) -> dict[str, Template]:
        items = self.mapping(value, key)
        return {name: self.template(item, (*key, name), place) for name, item in items.items()}

    def tree(self, value: Any, key: Key, place: _Place) -> Tree:
        if isinstance(value, dict):
            return {name: self.tree(item, (*key, name), place) for name, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, (*key, at), place) for at, item in enumerate(value)]
        return self.template(value, key, place)

    def condition(self, value: Any, key: Key, place: _Place) -> Node | None:
        if isinstance(value, bool | int | float):
            return Literal(value)
        if not isinstance(value, str):
            self.refuse(key, "a condition", value)
            return None
        try:
            node = condition(value)
            self.check(node, place)
        except ExpressionError as error:
            self.refuse(key, "a valid condition", error.what, error.fix)
            return None
        return node

    def check(self, node: Node, place: _Place) -> None:
        """Refuse names that do not exist: GitHub would take them as empty, and nobody would notice."""
        check_names(node, place.contexts, place.functions)
        for inner in walk(node):
            if not isinstance(inner, Index) or not isinstance(inner.of, Context):
                continue
            context = inner.of.name.lower()
            if not isinstance(inner.index, Literal) or not isinstance(inner.index.value, str):
                continue
            known: Collection[str] | None = {
                "github": GITHUB_PROPERTIES,
                "needs": place.needs,
                "steps": place.steps,
                "inputs": place.inputs,
                "matrix": place.matrix,
            }.get(context)
            if known is not None and inner.index.value.lower() not in {name.lower() for name in known}:
                listed = ", ".join(sorted(known)) or "none"
                raise ExpressionError(f"{context}.{inner.index.value} does not exist", fix=f"known here: {listed}")
        self.check_outputs(node, place)

    def check_outputs(self, node: Node, place: _Place) -> None:
        """`needs.<job>.outputs.<name>`: the job must declare the output."""
        for inner in walk(node):
            match inner:
                case Index(
                    Index(Index(Context(context), Literal(str(job))), Literal("outputs")), Literal(str(output))
                ) if context.lower() == "needs" and place.needs is not None:
                    declared = place.needs.get(job, ())
                    if output not in declared:
                        listed = ", ".join(sorted(declared)) or "none"
                        raise ExpressionError(f"the job {job!r} has no output {output!r}", fix=f"it has: {listed}")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:120]


# --- workflows -------------------------------------------------------------------------------------------------------

_WORKFLOW_KEYS = ("name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs")
_JOB_KEYS = (
    *("name", "needs", "if", "runs-on", "environment", "permissions", "outputs", "env", "defaults", "strategy"),
    *("timeout-minutes", "continue-on-error", "concurrency", "steps"),
)
_STEP_KEYS = (
    *("id", "name", "if", "run", "shell", "uses", "with", "env", "working-directory", "timeout-minutes"),
    "continue-on-error",
)
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_FALSE = Template("false", (Literal(False),))


def read_workflow(content: bytes, path: str) -> Workflow:
    """Read a workflow file.

    Args:
        content: the file as committed.
        path: its path in the repository, named in errors.

    Raises:
        DeclarationError: the file is not one, or uses something that this runner does not know; names file, line, key.
    """
    value, lines = parse_yaml(content, Path(path))
    file = _File(value, lines, Path(path))
    top = file.mapping(value, (), _WORKFLOW_KEYS)
    for required in ("on", "jobs"):
        if required not in top:
            file.refuse((), f"the key {required!r}", "nothing")
    triggers = _triggers(file, top.get("on"), ("on",)) if "on" in top else {}
    inputs = triggers["workflow_dispatch"].inputs if "workflow_dispatch" in triggers else ()
    names = frozenset(item.name for item in inputs)
    run_name = None
    if "run-name" in top:
        run_name = file.template(top["run-name"], ("run-name",), replace(_RUN_NAME, inputs=names))
    workflow = Workflow(
        path=path,
        name=file.text(top["name"], ("name",)) if "name" in top else path,
        run_name=run_name,
        triggers=triggers,
        permissions=_permissions(file, top["permissions"], ("permissions",)) if "permissions" in top else None,
        env=file.templates(top.get("env", {}), ("env",), replace(_WORKFLOW_ENV, inputs=names)),
        defaults=_defaults(file, top.get("defaults"), ("defaults",), _place("")),
        concurrency=_concurrency(file, top.get("concurrency"), ("concurrency",), replace(_RUN_NAME, inputs=names)),
        jobs=_jobs(file, top.get("jobs", {}), names),
    )
    return file.done(workflow)


def _triggers(file: _File, value: Any, key: Key) -> dict[str, Trigger]:
    if isinstance(value, str | list):
        names = dict.fromkeys(file.texts(value, key))
        keys = dict.fromkeys(names, key)
    else:
        names = file.mapping(value, key)
        keys = {name: (*key, name) for name in names}
    triggers: dict[str, Trigger] = {}
    for name, body in names.items():
        if name not in EVENTS:
            fix = "it runs with the repository's secrets on a stranger's code" if name == "pull_request_target" else ""
            file.refuse(keys[name], f"one of {', '.join(EVENTS)}", f"the event {name!r}", fix)
        elif name == "schedule":
            triggers[name] = _schedule(file, body, keys[name])
        else:
            triggers[name] = _trigger(file, name, body, keys[name])
    return triggers


def _trigger(file: _File, event: str, value: Any, key: Key) -> Trigger:
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


def _patterns(file: _File, body: dict[str, Any], key: Key, name: str) -> Patterns | None:
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


def _schedule(file: _File, value: Any, key: Key) -> Trigger:
    crons: list[str] = []
    for at, item in enumerate(file.sequence(value, key)):
        body = file.mapping(item, (*key, at), ("cron",))
        cron = file.text(body.get("cron"), (*key, at, "cron"))
        if not re.fullmatch(r"[0-9*/,A-Za-z-]+(?: +[0-9*/,A-Za-z-]+){4}", cron):
            file.refuse((*key, at, "cron"), "five fields: minute, hour, day, month, day of the week", repr(cron))
        crons.append(cron)
    return Trigger("schedule", crons=tuple(crons))


_INPUT_KEYS = ("description", "required", "default", "type", "options", "deprecationMessage")


def _inputs(file: _File, value: Any, key: Key) -> tuple[Input, ...]:
    result: list[Input] = []
    for name, item in file.mapping(value, key).items():
        at = (*key, name)
        body = {} if item is None else file.mapping(item, at, _INPUT_KEYS)
        kind = file.text(body.get("type", "string"), (*at, "type"))
        if kind not in ("string", "boolean", "number", "choice", "environment"):
            file.refuse((*at, "type"), "string, boolean, number, choice or environment", repr(kind))
        options = file.texts(body["options"], (*at, "options")) if "options" in body else ()
        if (kind == "choice") != bool(options):
            file.refuse(at, "options with the type choice, and only with it", f"type {kind}, {len(options)} options")
        default = body.get("default")
        if isinstance(default, str) and "${{" in default:
            file.refuse((*at, "default"), "a plain value", default)
        written = None if default is None else Template(str(default), (Literal(default),))
        result.append(Input(name, kind, body.get("required", False) is True, written, options))
    return tuple(result)


def _permissions(file: _File, value: Any, key: Key) -> dict[str, str]:
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


def _defaults(file: _File, value: Any, key: Key, place: _Place) -> Defaults:
    body = file.mapping(file.mapping({} if value is None else value, key, ("run",)).get("run", {}), (*key, "run"))
    body = file.mapping(body, (*key, "run"), ("shell", "working-directory"))
    folder = body.get("working-directory")
    return Defaults(
        _shell(file, body["shell"], (*key, "run", "shell")) if "shell" in body else None,
        None if folder is None else file.template(folder, (*key, "run", "working-directory"), place),
    )


def _shell(file: _File, value: Any, key: Key) -> str:
    if value != "bash":
        file.refuse(key, "bash (the only shell the laptop's runner starts)", value)
    return "bash"


def _concurrency(file: _File, value: Any, key: Key, place: _Place) -> Concurrency | None:
    if value is None:
        return None
    if isinstance(value, str):
        return Concurrency(file.template(value, key, place), _FALSE, "single")
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


def _jobs(file: _File, value: Any, inputs: frozenset[str]) -> dict[str, Job]:
    bodies = {
        name: file.mapping(body, ("jobs", name), _JOB_KEYS) for name, body in file.mapping(value, ("jobs",)).items()
    }
    if not bodies:
        file.refuse(("jobs",), "at least one job", "none")
    needs: dict[str, tuple[str, ...]] = {}
    for name, body in bodies.items():
        if not _ID.fullmatch(name):
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


def _refuse_cycles(file: _File, needs: Mapping[str, Sequence[str]]) -> None:
    done: set[str] = set()
    while ready := [name for name in needs if name not in done and done.issuperset(set(needs[name]) & set(needs))]:
        done.update(ready)
    for name in needs:
        if name not in done:
            file.refuse(("jobs", name, "needs"), "jobs that do not wait for each other", "a circle")


def _job(
    file: _File,
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
        strategy = _strategy(file, body["strategy"], (*key, "strategy"), replace(_STRATEGY, **early))
    axes: Collection[str] | None = ()
    if strategy is not None:
        static = strategy.whole is None and isinstance(strategy.include, list)
        listed = [set(item) for item in strategy.include if isinstance(item, dict)] if static else []
        axes = set(strategy.axes).union(*listed) if static else None
    at: dict[str, Any] = {**early, "matrix": axes}
    job_place = replace(_JOB, **at)
    for required in ("runs-on", "steps"):
        if required not in body:
            file.refuse(key, f"the key {required!r}", "nothing")
    steps = _steps(file, body.get("steps", []), (*key, "steps"), replace(_STEP, **at), replace(_STEP_IF, **at))
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
        condition=file.condition(body["if"], (*key, "if"), replace(_JOB_IF, **early)) if "if" in body else None,
        runs_on=runs_on,
        environment=_environment(file, body.get("environment"), (*key, "environment"), job_place, at, ids),
        permissions=_permissions(file, body["permissions"], (*key, "permissions")) if "permissions" in body else None,
        outputs=file.templates(body.get("outputs", {}), (*key, "outputs"), replace(_JOB_OUTPUTS, **at, steps=ids)),
        env=file.templates(body.get("env", {}), (*key, "env"), replace(_JOB_ENV, **at)),
        defaults=_defaults(file, body.get("defaults"), (*key, "defaults"), replace(_JOB_DEFAULTS, **at)),
        strategy=strategy,
        timeout_minutes=file.template(body.get("timeout-minutes", 360), (*key, "timeout-minutes"), job_place, "number"),
        continue_on_error=file.template(
            body.get("continue-on-error", False), (*key, "continue-on-error"), job_place, "boolean"
        ),
        concurrency=_concurrency(file, body.get("concurrency"), (*key, "concurrency"), job_place),
        steps=steps,
    )


def _environment(
    file: _File, value: Any, key: Key, place: _Place, at: Mapping[str, Any], ids: Collection[str]
) -> Environment | None:
    if value is None:
        return None
    if isinstance(value, str):
        return Environment(file.template(value, key, place), None)
    body = file.mapping(value, key, ("name", "url"))
    url = body.get("url")
    return Environment(
        file.template(body.get("name", ""), (*key, "name"), place),
        None if url is None else file.template(url, (*key, "url"), replace(_JOB_URL, **at, steps=ids)),
    )


def _strategy(file: _File, value: Any, key: Key, place: _Place) -> Strategy:
    body = file.mapping(value, key, ("matrix", "fail-fast", "max-parallel"))
    matrix, whole = body.get("matrix"), None
    axes: dict[str, Tree] = {}
    include: Tree = []
    exclude: Tree = []
    if isinstance(matrix, str):
        whole = file.template(matrix, (*key, "matrix"), place)
        if not whole.parts:
            file.refuse((*key, "matrix"), "keys and values, or an expression", matrix)
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


def _steps(
    file: _File, value: Any, key: Key, place: _Place, place_if: _Place, *, shell_needed: bool = False
) -> tuple[Step, ...]:
    steps: list[Step] = []
    ids: list[str] = []
    for number, item in enumerate(file.sequence(value, key)):
        at = (*key, number)
        body = file.mapping(item, at, _STEP_KEYS)
        here, here_if = replace(place, steps=tuple(ids)), replace(place_if, steps=tuple(ids))
        step = _step(file, number + 1, body, at, here, here_if)
        if shell_needed and step.run is not None and step.shell is None:
            file.refuse(at, "the key 'shell' (a composite action must name it)", "nothing", "add shell: bash")
        if step.id in ids:
            file.refuse((*at, "id"), "an id that no earlier step has", repr(step.id))
        if step.id:
            ids.append(step.id)
        steps.append(step)
    if not steps:
        file.refuse(key, "at least one step", "none")
    return tuple(steps)


_REMOTE_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+(?:/[A-Za-z0-9._/-]+)?@(?P<ref>[^@\s]+)")


def _step(file: _File, number: int, body: dict[str, Any], key: Key, place: _Place, place_if: _Place) -> Step:
    uses = file.text(body["uses"], (*key, "uses")) if "uses" in body else None
    if (uses is None) == ("run" not in body):
        file.refuse(key, "either 'run' or 'uses'", "both" if uses is not None else "neither")
    for name in ("shell", "working-directory") if uses is not None else ("with",):
        if name in body:
            file.refuse((*key, name), f"{name!r} only beside {'run' if uses is not None else 'uses'}", repr(body[name]))
    if uses is not None:
        _check_uses(file, uses, (*key, "uses"))
    identity = file.text(body["id"], (*key, "id")) if "id" in body else ""
    if identity and not _ID.fullmatch(identity):
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
        shell=_shell(file, body["shell"], (*key, "shell")) if "shell" in body else None,
        uses=uses,
        inputs=file.templates(body.get("with") or {}, (*key, "with"), place),
        env=file.templates(body.get("env") or {}, (*key, "env"), place),
        working_directory=optional("working-directory"),
        timeout_minutes=optional("timeout-minutes", "number"),
        continue_on_error=optional("continue-on-error", "boolean") or _FALSE,
    )


def _check_uses(file: _File, uses: str, key: Key) -> None:
    if uses.startswith(("./", "$/")):
        if ".." in uses.split("/") or "@" in uses or not uses[2:].strip("/"):
            file.refuse(key, "a folder inside the repository, without a version", uses)
        return
    match = _REMOTE_ACTION.fullmatch(uses)
    if match is None:
        file.refuse(key, "$/folder, ./folder or owner/action@<commit>", uses)
    elif not re.fullmatch(r"[0-9a-f]{40}", match["ref"]):
        fix = "a tag can be moved to other code: write the commit, and the version in a comment"
        file.refuse(key, "an action pinned by its full commit (40 hexadecimal digits)", uses, fix)


_ACTION_KEYS = ("name", "description", "author", "branding", "inputs", "outputs", "runs")


def read_action(content: bytes, path: str) -> CompositeAction:
    """Read a local action's `action.yml`.

    Raises:
        DeclarationError: see `read_workflow`; also for anything but a composite action.
    """
    value, lines = parse_yaml(content, Path(path))
    file = _File(value, lines, Path(path))
    top = file.mapping(value, (), _ACTION_KEYS)
    inputs: list[Input] = []
    keys = ("description", "required", "default", "deprecationMessage")
    for name, item in file.mapping(top.get("inputs") or {}, ("inputs",)).items():
        body = {} if item is None else file.mapping(item, ("inputs", name), keys)
        default = body.get("default")
        parsed = None if default is None else file.template(default, ("inputs", name, "default"), _ACTION_DEFAULT)
        inputs.append(Input(name, "string", body.get("required", False) is True, parsed))
    names = tuple(item.name for item in inputs)
    runs = file.mapping(top.get("runs"), ("runs",), ("using", "steps"))
    if runs.get("using") != "composite":
        file.refuse(("runs", "using"), "composite (the only kind the laptop's runner knows)", runs.get("using"))
    place, place_if = replace(_ACTION_STEP, inputs=names), replace(_ACTION_STEP_IF, inputs=names)
    steps = _steps(file, runs.get("steps", []), ("runs", "steps"), place, place_if, shell_needed=True)
    ids = tuple(step.id for step in steps if step.id)
    outputs: dict[str, Template] = {}
    for name, item in file.mapping(top.get("outputs") or {}, ("outputs",)).items():
        body = file.mapping(item, ("outputs", name), ("description", "value"))
        outputs[name] = file.template(body.get("value", ""), ("outputs", name, "value"), replace(place, steps=ids))
    title = file.text(top.get("name", path), ("name",))
    return file.done(CompositeAction(title, tuple(inputs), outputs, steps))
