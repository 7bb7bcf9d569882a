"""A user's mistake ends a program with `pulumi.RunError`, which Pulumi shows without a traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pulumi
import pulumi_aws
import pytest

from infra.kubeconfig import read_kubeconfigs
from infra.mistakes import reported
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.placement import authority_digest
from tests.infra.recording import ACCOUNT as RECORDED_ACCOUNT
from tests.infra.recording import AUTHORITY, BUNDLE, REGION, Recording, edit, record, record_bootstrap, write_kubeconfig
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


LIVES = {
    "account": RECORDED_ACCOUNT,
    "region": REGION,
    "cluster": "mlops-dev",
    "namespace": "models-dev",
    "cluster_authority": authority_digest(AUTHORITY),
}


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            {"account": "999999999999"},
            r"dev cannot move to another AWS account: expected 999999999999, .*\n  fix: sign",
        ),
        (
            {"region": "us-east-1"},
            r"another region: expected us-east-1, where it was created, found eu-west-1\n  fix: ",
        ),
        ({"cluster": "mlops-old"}, r"another cluster: expected mlops-old, .* found mlops-dev\n  fix: write mlops-old "),
        ({"namespace": "old"}, r"another namespace: expected old, .*\n  fix: .*create another environment"),
        (
            {"cluster_authority": authority_digest(b"x")},
            r"mlops-dev is not the one .*\n  fix: if the cluster was creat",
        ),
    ],
)
def test_an_environment_cannot_move(project: Path, before: dict[str, str], expected: str) -> None:
    last = {"placement": {**LIVES, **before}}
    assert_says(refused(lambda: record(project, "dev", last_outputs=last)), expected)


def test_an_environment_of_an_earlier_version_cannot_move_either(project: Path, graphs: dict[str, Recording]) -> None:
    descriptor = graphs["dev"].outputs["descriptor"]
    record(project, "dev", last_outputs={"descriptor": descriptor})
    last = {"descriptor": {**descriptor, "cluster": "mlops-old"}}
    assert_says(refused(lambda: record(project, "dev", last_outputs=last)), "cannot move to another cluster")


def test_a_cluster_that_was_created_again_is_used_once_its_authority_is_declared(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    edit(project / "Pulumi.dev.yaml", *SETTINGS, "cluster_authority", value=authority_digest(AUTHORITY))
    last = {"placement": {**LIVES, "cluster_authority": authority_digest(b"earlier")}}
    assert record(project, "dev", last_outputs=last).outputs["placement"] == LIVES


def test_a_live_model_cannot_be_removed_with_its_folder(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    shutil.rmtree(project / "models")
    last = {"placement": LIVES, "released": {"diabetes-progression": BUNDLE}}
    text = refused(lambda: record(project, "dev", last_outputs=last))
    assert_says(text, r"diabetes-progression is live in dev with sha256:.*\n  fix: restore models/diabetes-progression")
    record(project, "dev", last_outputs={"placement": LIVES, "released": {}})


def test_a_kubeconfig_of_other_clusters_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_kubeconfig(tmp_path / "kubeconfig", b"of another cluster")
    monkeypatch.setattr("infra.declared_cluster.read_kubeconfigs", lambda _: read_kubeconfigs(str(other)))
    text = refused(lambda: record(project, "dev"))
    assert_says(text, r"KUBECONFIG does not lead to .*cluster/mlops-dev .*\n  fix: aws eks update-kubeconfig --name ml")
