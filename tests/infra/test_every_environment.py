"""Checks of this repository's own environments, which a fork may add, change or remove."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.layout import STATE_ALIAS, AccountLayout
from infra.policies import violations
from infra.scopes import Environment, Scope
from pipelines.declarations.project import Project
from pipelines.declarations.repository_root import PROGRAM
from tests.infra.recording import ACCOUNT, Recording, record, release_everywhere
from tests.sample_project import ROOT

pytestmark = pytest.mark.slow

PROJECT = Project(ROOT)
ACCOUNT_FILE = "infra/bootstrap/Pulumi.account.yaml"


def record_all(root: Path) -> dict[str, Recording]:
    """Record the program of each environment, by name."""
    recorded: dict[str, Recording] = {}
    for name in Project(root).environments:
        before = {name: one.outputs["descriptor"] for name, one in recorded.items()}
        recorded[name] = record(root, name, descriptors=before)
    return recorded


def test_current_pins_and_releases_break_no_rule() -> None:
    for name, graph in record_all(ROOT).items():
        assert [str(violation) for violation in violations(graph.resources)] == [], name


def test_releasing_every_model_everywhere_breaks_no_rule(tmp_path: Path) -> None:
    for file in ROOT.glob("Pulumi*.yaml"):
        shutil.copy(file, tmp_path)
    for folder in ("models", "data-contracts"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, graph in record_all(release_everywhere(tmp_path)).items():
        assert [str(violation) for violation in violations(graph.resources)] == [], name
        assert graph.outputs["notes"] == [], name
        assert set(graph.outputs["descriptor"]["endpoints"]) == set(PROJECT.model_names), name


def test_the_bootstrap_accepts_the_configured_environments() -> None:
    configured = yaml.safe_load((ROOT / ACCOUNT_FILE).read_text())["config"]
    main = yaml.safe_load((ROOT / PROGRAM).read_text())["name"]
    account = AccountConfig.model_validate_json(json.dumps(configured["mlops-bootstrap:account"]))
    scope = Scope("account", main, account, ACCOUNT, configured["aws:region"])
    stacks = {name: PROJECT.stack(name).config for name in PROJECT.environments}
    environments = [Environment(name, main, one.environment, ACCOUNT, one.region) for name, one in stacks.items()]
    assert AccountLayout(scope, main, tuple(environments)).environments


@pytest.mark.parametrize("environment", PROJECT.environments)
def test_a_stack_encrypts_its_secrets_with_the_bootstrap_key(environment: str) -> None:
    region = yaml.safe_load((ROOT / ACCOUNT_FILE).read_text())["config"]["aws:region"]
    assert PROJECT.stack(environment).secrets_provider == f"awskms://{STATE_ALIAS}?region={region}", (
        f"the key is in the region that {ACCOUNT_FILE} names"
    )
