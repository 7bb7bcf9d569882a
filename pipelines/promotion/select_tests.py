"""Select the tests that a change can affect, so that a change of one model does not wait for all the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

EVERY_MODEL = "tests/models/test_every_model.py::test_a_model_trained_on_its_sample_passes_the_gates"
"""Test that trains each model on its sample, and is named after it."""

PROVISIONED = ("tests/infra/test_every_environment.py",)
"""Tests that provision the repository's own environments."""

PAGES = ("tests/test_docs.py", "tests/pipelines/github/test_settings_page.py")
"""Tests that read the documentation."""

OWNERS = ("tests/pipelines/github/test_release_owners.py", "tests/pipelines/github/test_repository_files.py")
"""Tests that read the repository's own `CODEOWNERS`."""

WORKFLOWS = (
    "tests/github/test_workflows.py",
    "tests/infra/policies/test_application.py",
    "tests/pipelines/github/test_alarm_workflow.py",
    *PAGES,
)
"""Tests that read the list of environments in the workflow `respond`."""

_RULES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"data-contracts/.+"), ("tests/models", *PROVISIONED)),
    (re.compile(r"tests/models/.+"), ("tests/models",)),
    (
        re.compile(r"Pulumi\.[^/]+\.yaml"),
        (
            *PROVISIONED,
            "tests/infra/test_policy_sizes.py",
            "tests/pipelines/declarations/test_project.py",
            "tests/pipelines/github/test_alarm_workflow.py",
            OWNERS[0],
        ),
    ),
    (re.compile(r"\.github/CODEOWNERS"), OWNERS),
    (re.compile(r"docs/.+|[^/]+\.md"), PAGES),
    (re.compile(r"laptop/docs/.+"), (*PAGES, "laptop/tests/test_delays.py")),
)
"""Path of a changed file → the tests that it can affect. The first rule that fits counts."""

_MODEL = re.compile(r"models/(?P<name>[^/]+)/(?P<path>.+)")
_LAPTOP = re.compile(r"laptop/.+")
_PLAIN = re.compile(r"[\w./:\[\]-]+", re.ASCII)


@dataclass(frozen=True)
class SelectedTests:
    """What CI checks in a change.

    Attributes:
        paths: arguments of pytest, sorted; none stands for all tests.
        types: whether types are checked: code that has types changed.
    """

    paths: tuple[str, ...]
    types: bool


ALL = SelectedTests((), types=True)


def select_tests(
    files: Iterable[str], exists: Callable[[str], bool], *, listed_environments: Collection[str] = ()
) -> SelectedTests:
    """Return the tests that a change of these files can affect.

    The tests of the code use sample declarations only, and no test of the product uses the laptop. So a model, a
    contract or an environment affects only the tests of the repository's own declarations, and the laptop affects its
    own tests. A file without a rule may affect everything.

    Args:
        files: the changed files.
        exists: whether a path exists after the change.
        listed_environments: files of which the change edits nothing but the list of environments.
    """
    selected: set[str] = set()
    types = False
    for file in files:
        if file in listed_environments:
            selected.update(WORKFLOWS)
            continue
        model = _MODEL.fullmatch(file)
        if model is not None:
            selected.update(_tests_of_model(model["name"], model["path"], exists))
            continue
        rule = next((tests for pattern, tests in _RULES if pattern.fullmatch(file)), None)
        if rule is None and _LAPTOP.fullmatch(file):
            rule, types = ("laptop/tests", "tests/test_structure.py", *PAGES), True
        if rule is None:
            return ALL
        selected.update(rule)
    if not all(map(_PLAIN.fullmatch, selected)):  # `make` passes the paths to a shell
        return ALL
    present = {path for path in selected if exists(path.partition("::")[0])}
    whole = {path for path in present if not any(path.startswith(f"{other}/") for other in present)}
    return SelectedTests(tuple(sorted(whole)), types) if whole else ALL


def _tests_of_model(name: str, path: str, exists: Callable[[str], bool]) -> set[str]:
    found = {f"tests/models/test_{name.replace('-', '_')}.py"}
    if exists(f"models/{name}/model.yaml"):
        found.add(f"{EVERY_MODEL}[{name}]")
    return found | (set(PROVISIONED) if path == "model.yaml" else set())
