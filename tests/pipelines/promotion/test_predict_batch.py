"""What `mlops predict --file` and `--dataset` check, upload and save; the job runs in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli.main import mlops
from pipelines.cluster.jobs import JobRun
from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.prediction.prediction_job import run_prediction
from pipelines.prediction.prediction_request import PREDICTION_REQUEST, PredictionRequest
from pipelines.promotion import predict_batch
from pipelines.promotion.predict_batch import predict_file, predict_version
from pipelines.registry import bundles, evidence
from pipelines.registry.bundle_quarantine import Quarantined, quarantine
from pipelines.targets.aws import AwsTarget
from tests.aws import EmulatedAccount
from tests.infra.recording import release_everywhere
from tests.pipelines.prediction.progression import MODEL, patients, progression_bundle, save
from tests.sample_project import PROJECT, copy_as_forked
from tests.signing_environments import GATES, example_build, make_signing_environment

pytestmark = pytest.mark.slow

SOURCE = Project(PROJECT).contract("diabetes-patients")
IMAGES = ImageReferences(training="training@sha256:" + "1" * 64, serving=None)


class KnownTarget(AwsTarget):
    """A target with one environment that is up."""

    dev: EnvironmentDescriptor

    def descriptor(self, environment: str) -> EnvironmentDescriptor:
        return self.dev

    @contextmanager
    def using_cluster(self, environment: str) -> Iterator[None]:
        yield


@dataclass
class Place:
    """An environment, and the requests that its job got."""

    target: KnownTarget
    requests: list[PredictionRequest] = field(default_factory=list)
    silent: bool = False


@pytest.fixture
def place(account: EmulatedAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    target = KnownTarget(Project(release_everywhere(copy_as_forked(tmp_path / "project"))))
    target.dev = make_signing_environment("dev", None, SOURCE).model_copy(update={"images": IMAGES})
    made = Place(target)

    def run(
        namespace: str, job: str, *, variables: Mapping[str, str], on_line: Callable[[str], None], **_: Any
    ) -> JobRun:
        assert job == f"predict-{MODEL}"
        request = PredictionRequest.model_validate_json(variables[PREDICTION_REQUEST])
        made.requests.append(request)
        snapshot = run_prediction(target.project, target.dev, MODEL, request, on_line)
        return JobRun(job, () if made.silent else (f"snapshot {snapshot}",), 1.0)

    monkeypatch.setattr(predict_batch, "run_job", run)
    return made


def registered(place: Place) -> str:
    made = progression_bundle()
    bundles.push(place.target.dev, made.manifest, made.files)
    evidence.attest(place.target.dev, made.manifest, GATES, example_build("dev"))
    return made.digest


def test_the_command_uploads_a_file_once_and_saves_its_predictions(place: Place, tmp_path: Path) -> None:
    bundle, file = registered(place), save(tmp_path, patients(10), "März 1.parquet")
    output = tmp_path / "out.csv"
    for _ in range(2):
        run = predict_file(place.target, MODEL, "dev", file, lambda _: None, bundle=bundle, output=output)
        assert (run.bundle, run.rows) == (bundle, 10)
    assert len(output.read_text().splitlines()) == 11
    listed = boto3.client("s3").list_objects_v2(Bucket=place.target.dev.landing_bucket)["Contents"]
    (key,) = [each["Key"] for each in listed]
    assert key.startswith(f"{MODEL}-predictions/M-rz-1-")
    assert [request.file.key for request in place.requests if request.file is not None] == [key, key]


def test_a_job_whose_log_cannot_be_read_is_found_by_its_input(place: Place, tmp_path: Path) -> None:
    place.silent = True
    output = tmp_path / "out.parquet"
    file, bundle = save(tmp_path, patients(3)), registered(place)
    predict_file(place.target, MODEL, "dev", file, lambda _: None, bundle=bundle, output=output)
    assert pq.read_table(output).num_rows == 3


def test_what_the_file_lacks_is_found_before_anything_is_uploaded(place: Place, tmp_path: Path) -> None:
    bundle = registered(place)
    for table, message in ((patients(3).drop_columns(["bmi"]), "no bmi"), (patients(0), "found none")):
        with pytest.raises(MlopsError, match=message):
            predict_file(place.target, MODEL, "dev", save(tmp_path, table), lambda _: None, bundle=bundle)
    with pytest.raises(MlopsError, match=r"ends in \.parquet"):
        predict_file(place.target, MODEL, "dev", Path(__file__), lambda _: None, bundle=bundle)
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=place.target.dev.landing_bucket)
    assert place.requests == []


def test_a_bundle_that_may_not_predict_is_refused(place: Place, tmp_path: Path) -> None:
    file, bundle = save(tmp_path, patients(3)), registered(place)

    def predict(digest: str = "") -> None:
        predict_file(place.target, MODEL, "dev", file, lambda _: None, bundle=digest)

    with pytest.raises(MlopsError, match="no bundle of diabetes-progression is live in dev"):
        predict()
    with pytest.raises(MlopsError, match=f"has no bundle sha256:{1:064}"):
        predict(f"sha256:{1:064}")
    with pytest.raises(MlopsError, match="is not the digest of a bundle"):
        predict("latest")
    entry = Quarantined(bundle=bundle, reason="biased", at=datetime(2026, 1, 1, tzinfo=UTC))
    quarantine(place.target.dev, MODEL, entry)
    with pytest.raises(MlopsError, match="quarantined in dev: biased"):
        predict(bundle)
    assert place.requests == []


def test_a_model_that_is_not_released_or_without_an_image_predicts_nothing(place: Place, tmp_path: Path) -> None:
    file, bundle = save(tmp_path, patients(3)), registered(place)
    place.target.dev = place.target.dev.model_copy(update={"images": ImageReferences(training=None, serving=None)})
    with pytest.raises(MlopsError, match="pins no training image"):
        predict_file(place.target, MODEL, "dev", file, lambda _: None, bundle=bundle)
    place.target.project = Project(copy_as_forked(tmp_path / "fresh"))
    with pytest.raises(MlopsError, match="is not released in dev"):
        predict_file(place.target, MODEL, "dev", file, lambda _: None, bundle=bundle)
    with pytest.raises(MlopsError, match="unknown model"):
        predict_file(place.target, "churn", "dev", file, lambda _: None, bundle=bundle)


def test_only_declared_datasets_with_rows_are_predicted(place: Place) -> None:
    bundle = registered(place)
    with pytest.raises(MlopsError, match="may not predict visits: expected diabetes-patients"):
        predict_version(place.target, MODEL, "dev", "visits", lambda _: None, bundle=bundle)
    with pytest.raises(MlopsError, match="has no versions yet"):
        predict_version(place.target, MODEL, "dev", "diabetes-patients", lambda _: None, bundle=bundle)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--file", "rows.parquet", "--dataset", "a"), "give one of them"),
        (("--file", "rows.parquet", "--times", "3"), "--times are for requests"),
        (("--file", "request.json", "--output", "a.csv"), "need --dataset"),
        (("--bundle", "sha256:1"), "need --dataset"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.json").write_text(json.dumps({}))
    save(tmp_path, patients(1), "rows.parquet")
    done = CliRunner().invoke(mlops, ["predict", MODEL, "--env", "dev", *arguments])
    assert done.exit_code == 2
    assert message in done.output
