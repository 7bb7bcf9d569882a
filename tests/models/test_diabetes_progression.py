"""Quality of the sample model. Delete this file together with the model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.project import Project
from pipelines.training.training_run import make_bundle
from pipelines.training.training_set import in_memory

PROJECT = Project(Path(__file__).parents[2])
MODEL = "diabetes-progression"
PATIENTS = 442


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Return the files of the model's bundle, trained on the valid rows of the sample."""
    model = PROJECT.model(MODEL)
    rows = pa.csv.read_csv(PROJECT.contracts_folder / "samples" / f"{model.contract}.csv").slice(0, PATIENTS)
    content = digest_of_bytes(b"the sample")
    version = DatasetVersion(dataset=model.contract, table="lake.t", snapshot="1", content=content, rows=PATIENTS)
    contract, image = PROJECT.contract(model.contract), digest_of_bytes(b"image")
    _, made = make_bundle(PROJECT, model, contract, in_memory(rows, model, contract), version, image, lambda line: None)
    return made


def test_the_model_meets_its_thresholds_with_a_margin(files: dict[str, bytes]) -> None:
    evaluation = Evaluation.model_validate_json(files["evaluation.json"])
    for threshold in PROJECT.model(MODEL).gates.thresholds:
        value = evaluation.metrics[threshold.metric].value
        assert value is not None
        room = f"{threshold.metric} is {value}, within 5 % of its threshold: slightly different data would fail"
        assert threshold.maximum is None or value < 0.95 * threshold.maximum, room
        assert threshold.minimum is None or value > 1.05 * threshold.minimum, room
    assert evaluation.holdout.leaked_rows == 0


def test_the_model_meets_its_fairness_bounds_on_groups_of_sufficient_size(files: dict[str, bytes]) -> None:
    evaluation = Evaluation.model_validate_json(files["evaluation.json"])
    bounds = PROJECT.model(MODEL).gates.fairness
    assert bounds
    for bound in bounds:
        groups = evaluation.groups[bound.attribute]
        assert all(part.rows >= bound.minimum_group_size for part in groups.groups.values())
        ratio = groups.ratio[bound.metric]
        assert ratio is not None and bound.maximum_ratio is not None
        assert ratio < bound.maximum_ratio


def test_the_model_card_states_purpose_metrics_and_fairness(files: dict[str, bytes]) -> None:
    card, model = files["card.md"].decode(), PROJECT.model(MODEL)
    use = " ".join(model.intended_use.split())
    for expected in (model.objective, model.owner, use, "snapshot 1", "| rmse | ", "## Fairness: sex"):
        assert expected in card
    for part in model.slices:
        assert f"| {part.name} | " in card
