"""Validate every declaration of a repository at once."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipelines.declarations.contract_references import reference_problems
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.environment_rules import environment_problems
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.live_models import WITHDRAW
from pipelines.declarations.project import Project


def validate_project(project: Project) -> int:
    """Validate every model, contract, release and environment, and that they fit together.

    Returns:
        The number of declarations.

    Raises:
        MlopsError: some are invalid; every problem is listed.
    """
    problems: list[str] = [str(problem) for problem in (*find_links(project), *find_orphans(project))]
    if problems:  # what a link leads to is not read
        raise MlopsError("\n".join(dict.fromkeys(problems)))
    count = 0
    for read in _readers(project, problems):
        count += 1
        _collect(read, problems)
    if not problems:
        problems += map(str, environment_problems(project))
        for dataset in project.dataset_names:
            problems += map(str, reference_problems(project, dataset))
        for model in project.model_names:
            problems += map(str, entrypoint_problems(project, model))
    if problems:
        raise MlopsError("\n".join(dict.fromkeys(problems)))
    return count


def find_links(project: Project) -> Iterator[Problem]:
    """Yield a problem for each symbolic link among the declarations.

    A gate judges the file that a pull request changes. Behind a link, the file that is read is another one.
    """
    roots = [project.models_folder, project.contracts_folder]
    found = [path for folder in roots for path in (folder, *folder.rglob("*")) if path.is_symlink()]
    for path in (*found, *(path for path in project.root.glob("Pulumi*.yaml") if path.is_symlink())):
        yield Problem(path, None, "", "a file or folder", "a symbolic link", "replace it by what it leads to")


def find_orphans(project: Project) -> Iterator[Problem]:
    """Yield a problem for each release file without its model or its environment."""
    environments = {path.name.split(".")[1] for path in project.root.glob("Pulumi.*.yaml")}
    for path in sorted(project.models_folder.glob("*/releases/*")):
        model, environment = path.parts[-3], path.stem
        if model not in project.model_names:
            fix = f"restore models/{model}/model.yaml, or remove the folder: {WITHDRAW}"
            yield Problem(path, None, "", f"a model.yaml in models/{model}", "no such file", fix)
        elif path.suffix != ".yaml" or environment not in environments:
            known = ", ".join(sorted(environments))
            yield Problem(path, None, "", f"<environment>.yaml for one of {known}", path.name, "remove the file")


def entrypoint_problems(project: Project, model: str) -> Iterator[Problem]:
    """Yield a problem if a model's entry point is missing. Its code is read, but does not run.

    Args:
        project: the project.
        model: name of a valid model.
    """
    entrypoint = project.model(model).training.entrypoint
    module, _, function = entrypoint.partition(":")
    code = project.models_folder / model / f"{module}.py"
    file = project.model_file(model)
    _, lines = parse_yaml(read_bytes(file), file)
    line = lines.get(("training", "entrypoint"))
    if not code.is_file():
        yield Problem(file, line, "training.entrypoint", f"a module in models/{model}", f"no file {code.name}")
        return
    try:
        defined = _names_of(ast.parse(read_bytes(code)))
    except SyntaxError as error:
        yield Problem(code, error.lineno, "", "Python code", error.msg)
    except (ValueError, RecursionError) as error:
        yield Problem(code, None, "", "Python code", str(error))
    else:
        if function not in defined and "*" not in defined:
            fix = f"define `def {function}(data: TrainingData) -> TrainedModel` in {code.name}"
            yield Problem(file, line, "training.entrypoint", f"a function in {code.name}", repr(function), fix)


def _names_of(module: ast.Module) -> set[str]:
    """Return the names that a module defines anywhere, which is more than it offers; `*` for names of another one."""
    names = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in ast.walk(module) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def _readers(project: Project, problems: list[str]) -> Iterator[Callable[[], object]]:
    """Yield a function that reads each declaration."""
    environments: tuple[str, ...] = _collect(lambda: project.environments, problems) or ()
    for environment in environments:
        yield partial(project.stack, environment)
    for dataset in project.dataset_names:
        yield partial(project.contract, dataset)
    for model in project.model_names:
        yield partial(project.model, model)
        for environment in environments:
            yield partial(project.release, model, environment)


def _collect(read: Callable[[], Any], problems: list[str]) -> Any:
    """Return what `read` returns, or add what is wrong to the problems and return None."""
    try:
        return read()
    except DeclarationError as error:
        problems += map(str, error.problems)
    except MlopsError as error:
        problems.append(str(error))
    return None


def describe_order(project: Project) -> str:
    """Return the order of promotion: `dev → staging → prod`, and each branch of it."""
    before = {name: project.stack(name).config.environment.promotes_from for name in project.environments}
    ends = [name for name in before if name not in before.values()]
    lines = []
    for end in ends:
        path: list[str] = [end]
        while (previous := before[path[0]]) is not None:
            path.insert(0, previous)
        lines.append(" → ".join(path))
    return "; ".join(lines)
