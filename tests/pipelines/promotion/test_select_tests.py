"""The tests that CI runs for a change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.promotion.select_tests import (
    ALL,
    EVERY_MODEL,
    OWNERS,
    PAGES,
    PROVISIONED,
    WORKFLOWS,
    SelectedTests,
    select_tests,
)
from tests.sample_project import ROOT

OWNERS_FILE = ".github/CODEOWNERS"
RESPOND_FILE = ".github/workflows/respond.yml"
OWN = f"{EVERY_MODEL}[churn]"
KNOWN = (
    "models/churn/model.yaml",
    "tests/models",
    "tests/models/test_churn.py",
    "laptop/tests",
    "laptop/tests/test_delays.py",
    "tests/test_structure.py",
    *PAGES,
    *PROVISIONED,
    EVERY_MODEL.partition("::")[0],
)


def select(*files: str, known: Sequence[str] = KNOWN) -> SelectedTests:
    return select_tests(files, known.__contains__)


def test_a_parameter_of_a_model_affects_its_own_tests_and_what_is_provisioned() -> None:
    own = {OWN, "tests/models/test_churn.py"}
    assert select("models/churn/train.py") == SelectedTests(tuple(sorted(own)), types=False)
    assert select("models/churn/model.yaml") == SelectedTests(tuple(sorted({*own, *PROVISIONED})), types=False)


def test_a_model_without_tests_of_its_own_is_still_trained() -> None:
    known = [path for path in KNOWN if path != "tests/models/test_churn.py"]
    assert select("models/churn/train.py", known=known).paths == (OWN,)


def test_a_removed_model_affects_what_is_provisioned() -> None:
    assert select("models/gone/train.py", "models/gone/model.yaml").paths == PROVISIONED


def test_a_contract_affects_every_model() -> None:
    assert select("data-contracts/x.odcs.yaml", "models/churn/train.py").paths == (*PROVISIONED, "tests/models")


def test_what_a_new_environment_writes_affects_the_tests_of_declarations_owners_and_alarms_only() -> None:
    declared = ("tests/infra/test_policy_sizes.py", "tests/pipelines/declarations/test_project.py")
    known = (*KNOWN, *OWNERS, *WORKFLOWS, *declared)
    written = ("Pulumi.qa.yaml", "models/churn/releases/qa.yaml", OWNERS_FILE, RESPOND_FILE)
    found = select_tests(written, known.__contains__, listed_environments=(RESPOND_FILE,))
    assert not found.types
    assert set(found.paths) >= {*PROVISIONED, *OWNERS, *WORKFLOWS}
    assert not any(path in ("tests/models", "laptop/tests") for path in found.paths)


def test_every_test_that_reads_the_owners_is_selected_by_their_file() -> None:
    reads = re.compile(r'ROOT / "\.github/CODEOWNERS"|check_release_owners\(Project\(ROOT\)')
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if reads.search(path.read_text(encoding="utf-8")) and path != Path(__file__)
    }
    assert found == set(OWNERS)


def test_another_environment_in_the_workflow_respond_affects_the_tests_of_workflows() -> None:
    known = (*KNOWN, *WORKFLOWS)
    found = select_tests([RESPOND_FILE], known.__contains__, listed_environments=(RESPOND_FILE,))
    assert found == SelectedTests(tuple(sorted(WORKFLOWS)), types=False)
    assert select(RESPOND_FILE, known=known) == ALL


def test_every_test_that_reads_the_workflow_respond_is_selected_by_another_environment_in_it() -> None:
    own = r'ROOT / "\.github" / "workflows"|check_alarm_workflow\(Project\(ROOT\)'
    reads = re.compile(rf'"\.github/workflows/\*|GITHUB / "workflows"|{own}')
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if reads.search(path.read_text(encoding="utf-8")) and path != Path(__file__)
    }
    assert found == set(WORKFLOWS) - set(PAGES), "no test that trains a model"


def test_a_page_affects_the_tests_of_the_pages() -> None:
    assert select("docs/on-call.md", "README.md") == SelectedTests(tuple(sorted(PAGES)), types=False)


def test_the_laptop_affects_its_own_tests() -> None:
    found = select("laptop/aws/account.py")
    assert found == SelectedTests(tuple(sorted({"laptop/tests", "tests/test_structure.py", *PAGES})), types=True)
    assert "laptop/tests" not in select("laptop/docs/README.md").paths
    assert "laptop/tests" not in select("laptop/aws/account.py", known=PAGES).paths, "the laptop is removed"


@pytest.mark.parametrize(
    "file",
    [
        *("pipelines/cli/main.py", "infra/__main__.py", "tests/conftest.py", "Makefile", "pyproject.toml"),
        *("requirements/cli.txt", ".github/workflows/ci.yml", "Pulumi.yaml", "models/README", "new/x.py"),
    ],
)
def test_everything_is_tested_after_a_change_that_can_affect_everything(file: str) -> None:
    assert select("models/churn/train.py", file) == ALL


def test_every_selected_test_exists() -> None:
    """A path that no longer exists would leave a change untested."""
    files = ("data-contracts/x", "tests/models/x", "Pulumi.dev.yaml", "docs/x", "models/x/model.yaml", OWNERS_FILE)
    selected = {path for file in files for path in select_tests([file], lambda _: True).paths}
    for path in {*selected, *WORKFLOWS} - {"tests/models/test_x.py"}:
        file, _, test = path.removesuffix("[x]").partition("::")
        assert (ROOT / file).exists(), path
        assert not test or f"def {test}(name: str" in (ROOT / file).read_text()


def test_only_the_selected_tests_read_the_declarations_of_this_repository() -> None:
    """All others use the sample declarations: what a fork declares cannot fail them."""
    reads = re.compile(r"Project\((?:ROOT|Path\(__file__\)\.parents\[\d\])\)")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if reads.search(path.read_text(encoding="utf-8"))
    }
    declared = ("Pulumi.dev.yaml", "data-contracts/x")
    selected = {path for file in declared for path in select_tests([file], lambda _: True).paths}
    others = {path for path in found if path not in selected and not path.startswith("tests/models/")}
    # What images copy, which the declarations do not decide.
    assert others <= {"tests/github/test_workflows.py"}


@pytest.mark.parametrize("name", ["a] --collect-only [b", "a$(id)", "a;true", "a\nb", "a'b"])
def test_the_name_of_a_model_is_no_option_and_no_command(name: str) -> None:
    assert select_tests([f"models/{name}/model.yaml"], lambda _: True) == ALL
