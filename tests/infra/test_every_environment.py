"""What holds for every environment of this repository, whatever was declared, changed or removed since its fork."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.estate import STATE_ALIAS, Estate
from infra.environment import Environment, Place
from infra.policies import violations
from pipelines.declarations.project import PROGRAM, Project
from tests.infra.recording import ACCOUNT, Recording, record, release_everywhere
from tests.sample_project import ROOT

PROJECT = Project(ROOT)
ACCOUNT_FILE = "infra/bootstrap/Pulumi.account.yaml"


def record_all(root: Path) -> dict[str, Recording]:
    """Environment → what its program asks for."""
    recorded: dict[str, Recording] = {}
    for name in Project(root).environments:
        before = {name: one.outputs["descriptor"] for name, one in recorded.items()}
        recorded[name] = record(root, name, descriptors=before)
    return recorded


def test_every_rule_holds_for_what_is_pinned_and_released_now() -> None:
    for name, graph in record_all(ROOT).items():
        assert [str(violation) for violation in violations(graph.resources)] == [], name


def test_every_rule_will_hold_when_every_model_is_released_everywhere(tmp_path: Path) -> None:
    for file in ROOT.glob("Pulumi*.yaml"):
        shutil.copy(file, tmp_path)
    for folder in ("models", "data-contracts"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, graph in record_all(release_everywhere(tmp_path)).items():
        assert [str(violation) for violation in violations(graph.resources)] == [], name
        assert graph.outputs["notes"] == [], name
        assert set(graph.outputs["descriptor"]["endpoints"]) == set(PROJECT.model_names), name


def test_the_account_can_be_made_ready_for_the_environments() -> None:
    said = yaml.safe_load((ROOT / ACCOUNT_FILE).read_text())["config"]
    main = yaml.safe_load((ROOT / PROGRAM).read_text())["name"]
    place = Place("account", main, AccountConfig.model_validate(said["mlops-bootstrap:account"]), ACCOUNT, "")
    stacks = {name: PROJECT.stack(name).config for name in PROJECT.environments}
    environments = [Environment(name, main, one.environment, ACCOUNT, one.region) for name, one in stacks.items()]
    assert Estate(place, main, tuple(environments)).environments


@pytest.mark.parametrize("environment", PROJECT.environments)
def test_the_secrets_of_a_stack_are_sealed_by_the_key_that_the_bootstrap_makes(environment: str) -> None:
    region = yaml.safe_load((ROOT / ACCOUNT_FILE).read_text())["config"]["aws:region"]
    assert PROJECT.stack(environment).secrets_provider == f"awskms://{STATE_ALIAS}?region={region}", (
        f"the key is in the region that {ACCOUNT_FILE} names"
    )
