"""The engine refuses every planted violation of a rule, and accepts the compliant graph next to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.policies import PlannedResource, violations
from laptop.engine.deployment import Deployment, DeploymentError
from laptop.tests.engine.planted_violations import COMPLIANT, PACKAGES, PLANTED, AnyProvider, write_project

pytestmark = pytest.mark.slow


def deployment(folder: Path, resources: Sequence[PlannedResource]) -> Deployment:
    providers = {package: AnyProvider() for package in PACKAGES}
    return Deployment(write_project(folder / "project", resources), "dev", providers, folder, policies=[violations])


def refused_by(stack: Deployment, operation: str) -> set[str]:
    """Return the ids of the rules that refuse an operation."""
    try:
        getattr(stack, operation)()
    except DeploymentError as refused:
        text = str(refused)
        if "policy violation(s); nothing was changed" not in text:
            raise
        return set(re.findall(r"\((\S+): ", text))
    return set()


@pytest.mark.parametrize("rule", PLANTED)
def test_the_engine_refuses_a_planted_violation(rule: str, tmp_path: Path) -> None:
    assert rule in refused_by(deployment(tmp_path, PLANTED[rule]), "up")
    assert not (tmp_path / "state" / "dev.json").exists()


@pytest.mark.parametrize("rules", COMPLIANT)
def test_the_engine_reports_no_violation_of_a_rule_that_is_kept(rules: str, tmp_path: Path) -> None:
    for operation in ("preview", "up"):
        assert refused_by(deployment(tmp_path, COMPLIANT[rules]), operation).isdisjoint(rules.split(","))
