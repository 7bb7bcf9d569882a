"""Validate every declaration of a repository at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.project import Project


def validate_project(project: Project) -> int:
    """Validate every model, contract, release and environment, and that they fit together.

    Returns:
        The number of declarations.

    Raises:
        MlopsError: some are invalid; every problem is listed.
    """
    problems: list[str] = []
    count = 0
    for read in _readers(project, problems):
        count += 1
        _collect(read, problems)
    if problems:
        raise MlopsError("\n".join(dict.fromkeys(problems)))
    return count


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
