"""Every model trains on its sample and passes the gates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.project import Project
from pipelines.promotion.facts import Facts, Policy
from pipelines.promotion.gates import GATES
from pipelines.promotion.trial import try_bundle
from tests.models.sample import bundle_of_sample

PROJECT = Project(Path(__file__).parents[2])
ACCEPTED = Facts.model_validate_json((PROJECT.root / "tests" / "refused" / "accepted.json").read_text())


def check_model(project: Project, name: str) -> None:
    """Train a model on its sample and apply the gates that judge the bundle alone."""
    manifest, files = bundle_of_sample(project, name)
    gates = project.model(name).gates
    facts = ACCEPTED.model_copy(
        update={
            "policy": Policy(gates=gates, digest=manifest.digest, evaluated=manifest.digest),
            "evaluation": Evaluation.model_validate_json(files["evaluation.json"]),
            "runtime": try_bundle(project, manifest, files),
            "live": None,
        }
    )
    for gate in ("thresholds", "champion", "fairness", "leakage", "runtime"):
        verdict = GATES[gate](facts)
        assert verdict.outcome == "pass", f"{gate}: {verdict.why}; {verdict.fix}"
    assert json.loads(files["schema.json"])["inputs"]


@pytest.mark.parametrize("name", PROJECT.model_names)
def test_a_model_trained_on_its_sample_passes_the_gates(name: str) -> None:
    check_model(PROJECT, name)
