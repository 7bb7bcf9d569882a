"""A user's mistake ends a program with `pulumi.RunError`, which Pulumi shows without a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pulumi
import pulumi_aws
import pytest

from infra.mistakes import reported
from pipelines.declarations.errors import MlopsError
from tests.infra.recording import edit, record, record_bootstrap
from tests.sample_project import copy_as_forked

SETTINGS = ("config", "mlops:environment")
ACCOUNT = ("config", "mlops-bootstrap:account")
BOOTSTRAP = Path("infra", "bootstrap", "Pulumi.account.yaml")


def changed(file: str | Path, *path: str, value: Any) -> Callable[[Path], None]:
    """Return a mistake: another value in a YAML file of a project."""
    return lambda project: edit(project / file, *path, value=value)


def without(file: str) -> Callable[[Path], None]:
    """Return a mistake: a missing file."""
    return lambda project: (project / file).unlink()


def written(file: str, text: str) -> Callable[[Path], None]:
    """Return a mistake: a file with another text."""

    def write(project: Path) -> None:
        (project / file).write_text(text)

    return write


def refused(run: Callable[[], object]) -> str:
    """Run a program, and return the text of the RunError that ends it."""
    with pytest.raises(pulumi.RunError) as ended:
        run()
    return str(ended.value)


def assert_says(text: str, expected: str) -> None:
    assert re.search(expected, text), text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (changed("Pulumi.dev.yaml", *SETTINGS, "trains", value=False), r"Pulumi\.dev\.yaml:\d+: .*trains"),
        (changed("Pulumi.dev.yaml", *SETTINGS, "trains", value="maybe"), r"Pulumi\.dev\.yaml:\d+: .*trains"),
        (changed("Pulumi.dev.yaml", "config", value={"aws:region": "eu-west-1"}), r"Pulumi\.dev\.yaml"),
        (changed("Pulumi.yaml", "name", value=f"a-very-long-{'name-' * 8}indeed"), "S3 allows 63 .*\n  fix: shorten"),
        (without("data-contracts/diabetes-patients.odcs.yaml"), r"diabetes-patients"),
        (without("models/diabetes-progression/releases/dev.yaml"), r"releases/dev\.yaml"),
        (written("models/diabetes-progression/model.yaml", "a: [\n"), r"model\.yaml:\d"),
    ],
)
def test_a_mistake_in_a_declaration_names_its_place(
    tmp_path: Path, mistake: Callable[[Path], None], expected: str
) -> None:
    project = copy_as_forked(tmp_path / "project")
    mistake(project)
    assert_says(refused(lambda: record(project, "dev")), expected)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (changed(BOOTSTRAP, "config", value={}), r"Pulumi\.account\.yaml: expected .*, found none\n  fix: write"),
        (changed(BOOTSTRAP, *ACCOUNT, "repository", value="acme"), r"repository"),
        (changed(BOOTSTRAP, *ACCOUNT, "owners", value="us"), r"owners"),
        (changed("Pulumi.dev.yaml", *SETTINGS, "permissions_boundary", value=None), r"Pulumi\.dev\.yaml .*\n  fix: "),
    ],
)
def test_a_mistake_in_the_bootstrap_names_its_place(
    tmp_path: Path, mistake: Callable[[Path], None], expected: str
) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    mistake(project)
    assert_says(refused(lambda: record_bootstrap(project)), expected)


def test_an_environment_requires_the_one_it_promotes_from(project: Path) -> None:
    text = refused(lambda: record(project, "staging", descriptors={}))
    assert_says(text, r"the stack 'dev' has no output `descriptor`\n  fix: mlops up --env dev")


def test_without_aws_credentials_the_program_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> NoReturn:
        raise Exception("no valid credential sources found")

    monkeypatch.setattr(pulumi_aws, "get_caller_identity", fail)
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    expected = r"cannot use AWS: .*, found no valid credential sources found\n  fix: sign in"
    assert_says(refused(lambda: record(project, "dev")), expected)
    assert_says(refused(lambda: record_bootstrap(project)), expected)


def test_other_errors_keep_their_type() -> None:
    with pytest.raises(KeyError), reported():
        raise KeyError("a fault of the program")
    with pytest.raises(pulumi.RunError, match=r"^wrong\n  fix: right$"), reported():
        raise MlopsError("wrong", fix="right")
