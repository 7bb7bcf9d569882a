"""Training without a request waits for data, and follows new data only if the model asks for it."""

from __future__ import annotations

import pytest

from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.declarations.project import Project
from pipelines.registry.runs import record_run
from pipelines.targets.training_due import TrainingFacts, Unless, read_facts, reason_to_wait
from tests.aws import EmulatedAccount, make_environment
from tests.sample_project import PROJECT

DECLARED = Project(PROJECT)
MODEL = DECLARED.model("diabetes-progression")
ON_REQUEST = MODEL.model_copy(update={"training": MODEL.training.model_copy(update={"retrain_on": ()})})

EMPTY = TrainingFacts(ready=True)
FIRST = TrainingFacts(ready=True, snapshot="1")
SAME = TrainingFacts(ready=True, snapshot="1", trained=True, ever_trained=True)
NEWER = TrainingFacts(ready=True, snapshot="2", ever_trained=True)


@pytest.mark.parametrize("unless", ["empty", "unchanged"])
def test_the_first_training_waits_for_data(unless: Unless) -> None:
    waits = reason_to_wait(MODEL, EMPTY, unless)
    assert waits == "training of diabetes-progression waits for data: diabetes-patients has no rows yet"
    assert reason_to_wait(MODEL, FIRST, unless) is None
    assert reason_to_wait(ON_REQUEST, FIRST, unless) is None, "nothing else would start its first training"


def test_an_environment_that_cannot_train_yet_waits() -> None:
    assert "is not up yet, or has no training image" in str(reason_to_wait(MODEL, TrainingFacts(), "unchanged"))


def test_new_data_trains_the_models_that_ask_for_it() -> None:
    assert reason_to_wait(MODEL, NEWER, "unchanged") is None
    assert "does not list new-data" in str(reason_to_wait(ON_REQUEST, NEWER, "unchanged"))


def test_a_dataset_version_is_trained_on_once_unless_it_is_requested() -> None:
    assert "is trained on the latest version" in str(reason_to_wait(MODEL, SAME, "unchanged"))
    assert reason_to_wait(MODEL, SAME, "empty") is None


@pytest.mark.parametrize("unless", ["empty", "unchanged"])
def test_a_model_that_uses_a_new_column_waits_for_rows_that_have_it(unless: Unless) -> None:
    facts = TrainingFacts(ready=True, snapshot="1", ever_trained=True, missing=("stops",))
    waits = str(reason_to_wait(MODEL, facts, unless))
    assert "waits for data with stops" in waits
    assert waits.endswith("ingest a file with it")
    assert str(reason_to_wait(ON_REQUEST, facts, unless)).endswith("then run the workflow train")


@pytest.mark.slow
def test_the_facts_follow_ingestion_and_training(account: EmulatedAccount) -> None:
    contract = DECLARED.contract(MODEL.contract)
    dev = make_environment("dev", contract)
    assert read_facts(dev, MODEL) == EMPTY
    upload(dev, MODEL.contract, DECLARED.contracts_folder / "samples" / f"{MODEL.contract}.csv")
    (record,) = ingest(dev, contract, lambda _: None)
    assert read_facts(dev, MODEL) == TrainingFacts(ready=True, snapshot=record.snapshot)
    record_run(dev, MODEL.name, "1", "sha256:" + "ab" * 32, str(record.snapshot))
    assert read_facts(dev, MODEL) == TrainingFacts(True, record.snapshot, trained=True, ever_trained=True)
    assert read_facts(None, MODEL) == TrainingFacts()
    wider = MODEL.model_copy(update={"features": (*MODEL.features, "stops")})
    assert read_facts(dev, wider).missing == ("stops",)
