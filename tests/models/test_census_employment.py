"""Quality of the sample model `census-employment`. Delete this file together with the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.data.local_rows import read_good_rows
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.project import Project
from pipelines.serving.runtime import OnnxModel
from pipelines.training.api import FEATURES
from pipelines.training.rows import features_of, target_of, text_features
from tests.models.sample import bundle_of_sample

pytestmark = pytest.mark.slow

PROJECT = Project(Path(__file__).parents[2])
MODEL = PROJECT.model("census-employment")
CONTRACT = PROJECT.contract(MODEL.contract)
SAMPLES = PROJECT.contracts_folder / "samples"
LATER = (2016, 2017, 2018)


@dataclass(frozen=True)
class Trained:
    """The bundle of the first year.

    Attributes:
        evaluation: its evaluation.
        onnx: its model, loaded as the server loads it.
        card: its model card.
    """

    evaluation: Evaluation
    onnx: OnnxModel
    card: str

    def probabilities(self, rows: pa.Table) -> np.ndarray:
        """Predict the probability of a job for each row."""
        features = features_of(rows, MODEL, CONTRACT)
        text = text_features(MODEL, CONTRACT)
        feed = {name: features[name].to_numpy(dtype=object).reshape(-1, 1) for name in text}
        feed[FEATURES] = features.drop(columns=list(text)).to_numpy(np.float32)
        return np.asarray(self.onnx.run(feed)[1])[:, 1]


@pytest.fixture(scope="module")
def trained() -> Trained:
    _, files = bundle_of_sample(PROJECT, MODEL.name)
    schema = RequestSchema.model_validate_json(files["schema.json"])
    onnx = OnnxModel(files["model.onnx"], schema.inputs, schema.outputs)
    return Trained(Evaluation.model_validate_json(files["evaluation.json"]), onnx, files["card.md"].decode())


@pytest.fixture(scope="module", params=LATER)
def year(request: pytest.FixtureRequest) -> pa.Table:
    """The rows of a later year, all of which keep the contract."""
    rows, bad = read_good_rows(CONTRACT, SAMPLES / f"{MODEL.contract}-{request.param}.parquet")
    assert bad == 0
    assert set(rows.column("answered_on").cast(pa.timestamp("s")).to_pandas().dt.year) == {request.param}
    return rows


def test_the_model_meets_its_thresholds_with_a_margin(trained: Trained) -> None:
    for threshold in MODEL.gates.thresholds:
        value = trained.evaluation.metrics[threshold.metric].value
        assert value is not None
        assert threshold.maximum is None or value < 0.95 * threshold.maximum
        assert threshold.minimum is None or value > 1.05 * threshold.minimum


def test_every_protected_group_is_large_enough_to_be_judged(trained: Trained) -> None:
    assert {bound.attribute for bound in MODEL.gates.fairness} == set(MODEL.protected)
    for bound in MODEL.gates.fairness:
        groups = trained.evaluation.groups[bound.attribute].groups
        assert len(groups) > 1
        assert all(part.rows >= bound.minimum_group_size for part in groups.values())


def test_the_model_stays_accurate_in_later_years(trained: Trained, year: pa.Table) -> None:
    truth = target_of(year, MODEL, CONTRACT).to_numpy()
    accuracy = float(np.mean((trained.probabilities(year) > 0.5) == truth))
    was = trained.evaluation.metrics["accuracy"].value
    assert was is not None
    assert accuracy > was - 0.01


def test_the_model_knows_more_than_the_share_of_people_with_a_job(trained: Trained, year: pa.Table) -> None:
    truth = target_of(year, MODEL, CONTRACT).to_numpy()
    accuracy = float(np.mean((trained.probabilities(year) > 0.5) == truth))
    assert accuracy > max(truth.mean(), 1 - truth.mean()) + 0.02


def test_no_person_is_in_two_years() -> None:
    files = [SAMPLES / f"{MODEL.contract}.parquet", *(SAMPLES / f"{MODEL.contract}-{each}.parquet" for each in LATER)]
    people = np.concatenate([np.asarray(read_good_rows(CONTRACT, file)[0].column("person_id")) for file in files])
    assert len(np.unique(people)) == len(people) == 103_637


def test_the_model_card_names_use_and_fairness(trained: Trained) -> None:
    for expected in (MODEL.objective, " ".join(MODEL.intended_use.split()), "## Fairness: race", "| disability | "):
        assert expected in trained.card
