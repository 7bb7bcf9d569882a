"""Runs in a registry: read once, the newest first; old, broken and tampered records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.declarations.digests import canonical_json, digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Estimate, Evaluation, Holdout, Part, Sample
from pipelines.declarations.run_facts import facts_of_run
from pipelines.registry import bundles, runs
from pipelines.training_runs.experiments import EXPERIMENTS, read_experiments, save_experiment
from pipelines.training_runs.recorded_runs import COPIES, disagreements, read_runs
from tests.aws import EmulatedAccount
from tests.pipelines.training_runs.recorded import digest, make_facts
from tests.signing_environments import (
    COMMIT,
    MODEL,
    example_bundle,
    example_files,
    make_signing_environment,
    with_empty_registry,
)

EVALUATION = Evaluation(
    model=MODEL,
    task="regression",
    holdout=Holdout(
        share=0.25, seed=7, rows=100, training_rows=300, unlabelled_rows=0, keys=digest("keys"), leaked_rows=0
    ),
    metrics={"rmse": Estimate(value=50.0, low=48.0, high=52.0)},
    slices={"young": Part(rows=10, metrics={"rmse": None})},
    groups={},
    sample=Sample(keys=(), truth=(), predicted=()),
)
FILES = example_files(evaluation_json=canonical_json(EVALUATION.model_dump(mode="json")))


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment("dev")


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    return with_empty_registry(environment)


def put(dev: EnvironmentDescriptor, run: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=dev.registry_bucket, Key=f"runs/{MODEL}/{run}.json", Body=content)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every further read of a record adds its run."""
    found: list[str] = []
    original = runs.read_records

    def read(descriptor: EnvironmentDescriptor, records: Any) -> dict[str, bytes]:
        found.extend(records)
        return original(descriptor, records)

    monkeypatch.setattr(runs, "read_records", read)
    return found


def test_records_are_read_once_and_the_newest_are_first(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reads(monkeypatch)
    for name, rmse in (("1", 50.0), ("2", 51.0)):
        runs.record_run(dev, MODEL, name, digest(name), "77", make_facts(rmse))
    runs.record_run(dev, MODEL, "1", digest("1"), "77", make_facts(99.0))
    found, older = read_runs(dev, MODEL, tmp_path, most=10)
    assert ([run.id for run in found], older) == (["2", "1"], 0)
    assert found[1].facts == make_facts(50.0), "a run has one record, and the snapshot's is not a run"
    assert found[1].bundle == digest("1") and found[1].environment == "dev"
    runs.record_run(dev, MODEL, "3", digest("3"), "78", make_facts())
    assert [run.id for run in read_runs(dev, MODEL, tmp_path, most=10)[0]] == ["3", "2", "1"]
    assert sorted(read) == ["1", "2", "3"]
    found, older = read_runs(dev, MODEL, tmp_path, most=2)
    assert ([run.id for run in found], older) == (["3", "2"], 1)
    runs.record_run(dev, MODEL, "4", digest("4"), "79", make_facts())
    assert [run.id for run in read_runs(dev, MODEL, tmp_path, most=1)[0]] == ["4"]
    assert len(read_runs(dev, MODEL, tmp_path, most=10)[0]) == 4
    assert sorted(read) == ["1", "2", "3", "4"], "a short list drops no copies"


def test_a_copy_of_another_registry_or_another_record_is_not_used(
    dev: EnvironmentDescriptor, environment: EnvironmentDescriptor, tmp_path: Path
) -> None:
    runs.record_run(dev, MODEL, "1", digest("1"), "77", make_facts(50.0))
    read_runs(dev, MODEL, tmp_path, most=10)
    put(dev, "1", runs.Run(bundle=digest("1"), facts=make_facts(60.0)).model_dump_json().encode())
    assert read_runs(dev, MODEL, tmp_path, most=10)[0][0].facts == make_facts(60.0)
    assert read_runs(with_empty_registry(environment), MODEL, tmp_path, most=10) == ([], 0)
    (tmp_path / COPIES / "dev" / f"{MODEL}.json").write_text("{")
    assert read_runs(dev, MODEL, tmp_path, most=10)[0][0].facts == make_facts(60.0)


def test_a_record_without_facts_has_those_of_its_bundle(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    manifest = example_bundle(FILES)
    bundles.push(dev, manifest, FILES)
    runs.record_run(dev, MODEL, "1", manifest.digest, "1")
    (found,), _ = read_runs(dev, MODEL, tmp_path, most=10)
    assert found.facts == facts_of_run(manifest, EVALUATION, image=manifest.image)
    assert found.facts is not None and found.facts.metrics["slice/young/rmse"].value is None
    assert disagreements(dev, found) == []


def test_a_record_that_is_none_or_names_a_missing_bundle_is_listed_with_the_reason(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    put(dev, "1", b"not JSON")
    put(dev, "2", b"x" * (runs.LARGEST_RECORD + 1))
    put(dev, "Bad_Name", b"{}")
    runs.record_run(dev, MODEL, "3", digest("missing"), "1")
    for _ in range(2):
        found = {run.id: run.problem for run in read_runs(dev, MODEL, tmp_path, most=10)[0]}
        broken = "its record is not one of a training run"
        assert found == {"1": broken, "2": broken, "3": "its bundle cannot be read"}


def test_a_record_that_disagrees_with_its_bundle_is_found(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    manifest = example_bundle(FILES)
    bundles.push(dev, manifest, FILES)
    facts = facts_of_run(manifest, EVALUATION, "2026-01-01T00:00:00Z", None, COMMIT, image=manifest.image)
    better = facts.model_copy(update={"metrics": {"rmse": Estimate(value=1.0, low=1.0, high=1.0)}, "seed": 8})
    for name, one in (("honest", facts), ("forged", better)):
        runs.record_run(dev, MODEL, name, manifest.digest, "1", one)
    found = {run.id: run for run in read_runs(dev, MODEL, tmp_path, most=10)[0]}
    assert disagreements(dev, found["honest"]) == []
    assert disagreements(dev, found["forged"]) == ["seed", "metrics"]
    runs.record_run(dev, MODEL, "lost", digest_of_bytes(b"lost"), "1", facts)
    lost = next(run for run in read_runs(dev, MODEL, tmp_path, most=10)[0] if run.id == "lost")
    with pytest.raises(MlopsError, match="has no bundle"):
        disagreements(dev, lost)


def test_a_record_about_another_model_is_none_of_this_one(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    """Its bundle agrees with it, so `disagreements` would find nothing."""
    runs.record_run(dev, MODEL, "1", digest("1"), "1", make_facts(model="another"))
    for _ in range(2):
        (found,), _ = read_runs(dev, MODEL, tmp_path, most=10)
        assert (found.facts, found.problem) == (None, "its record is about the model another")


def test_facts_that_are_too_large_are_left_to_the_bundle(dev: EnvironmentDescriptor) -> None:
    runs.record_run(dev, MODEL, "1", digest("1"), "1", make_facts(parameters={"text": "x" * runs.LARGEST_RECORD}))
    assert runs.read_run(dev, MODEL, "1") == digest("1")


def test_experiments_are_files_of_the_working_tree(tmp_path: Path) -> None:
    assert read_experiments(tmp_path, MODEL, most=10) == ([], 0)
    facts = make_facts(commit=None, image=None)
    name = save_experiment(tmp_path, facts)
    (tmp_path / EXPERIMENTS / MODEL / "here-20250101t000000-ab12.json").write_text("{}")
    found, older = read_experiments(tmp_path, MODEL, most=1)
    assert [(run.id, run.environment, run.bundle, run.facts) for run in found] == [(name, None, None, facts)]
    assert older == 1
    broken = read_experiments(tmp_path, MODEL, most=2)[0][1]
    assert (broken.facts, broken.problem) == (None, "here-20250101t000000-ab12.json is not an experiment")
    assert broken.ended.year == 2025
