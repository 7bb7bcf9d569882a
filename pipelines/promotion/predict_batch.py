"""Predict a file or a dataset version: choose the bundle, start the job, and save the predictions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.jobs import JobRun, run_job
from pipelines.data.catalog import open_table
from pipelines.data.landing import LandingBucket
from pipelines.data.reading import check_size
from pipelines.data.versions import LATEST, find_version, list_versions
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.digests import digest_of_file
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import prediction_job_name, predictions_name
from pipelines.declarations.predictions_contract import copied_columns
from pipelines.prediction.prediction_inputs import check_columns_of, open_file
from pipelines.prediction.prediction_output import check_output, save_predictions
from pipelines.prediction.prediction_request import PREDICTION_REQUEST, FileInput, PredictionRequest, VersionInput
from pipelines.promotion.live_bundles import live_bundle
from pipelines.registry import bundles, clients, store
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.targets import Target
from pipelines.targets.workloads import check_training_image

START_ALLOWANCE_SECONDS = 60
"""Time allowed for the job in addition to its declared deadline."""

INPUT_SUFFIX = ".parquet"

_UNFIT = re.compile(r"[^A-Za-z0-9._-]")
_SNAPSHOT = re.compile(r"snapshot ([0-9]{1,20})")

Log = Callable[[str], None]


@dataclass(frozen=True)
class BatchRun:
    """Batch prediction that succeeded.

    Attributes:
        dataset: dataset of the predictions.
        snapshot: its version that added them.
        bundle: digest of the bundle that predicted.
        rows: number of rows that were saved; None if no file was asked for.
    """

    dataset: str
    snapshot: str
    bundle: str
    rows: int | None


def predict_file(
    target: Target, model: str, environment: str, file: Path, log: Log, *, bundle: str = "", output: Path | None = None
) -> BatchRun:
    """Predict the rows of a local Parquet file in an environment.

    Args:
        target: where the environment lives.
        model: the model's name.
        environment: the environment's name.
        file: the file.
        log: receives each line of progress.
        bundle: digest of the bundle that predicts; the live one by default.
        output: Parquet or CSV file to save the predictions to.

    Raises:
        RefusedInputError: the file is not a whole Parquet file, has no rows, or lacks a column.
        MlopsError: the model is not released there, the bundle does not exist, or the job failed.
    """
    if output is not None:
        check_output(output)
    if file.suffix.lower() != INPUT_SUFFIX:
        raise MlopsError(
            f"{file} cannot be predicted: expected a name that ends in {INPUT_SUFFIX}, found {file.name!r}",
            fix="save it as Parquet, for example with to_parquet of pandas; a request is a .json file",
        )
    check_size(file.name, file.stat().st_size)
    declared = target.project.model(model)
    descriptor, chosen = _prepare(target, model, environment, bundle)
    schema, _ = open_file(file.name, file)
    fetched = bundles.fetch(descriptor, model, chosen, ["schema.json"])
    source = target.project.contract(declared.contract)
    inputs = parse(fetched.files["schema.json"], RequestSchema, Path("schema.json")).inputs
    copied = {name: source.columns[name].stored_as for name in copied_columns(source)}
    check_columns_of(file.name, schema, inputs, copied)
    given = _upload(descriptor, model, file)
    log(f"{file.name} is in s3://{descriptor.landing_bucket}/{given.key}")
    return _run(target, model, environment, descriptor, PredictionRequest(bundle=chosen, file=given), log, output)


def predict_version(
    target: Target,
    model: str,
    environment: str,
    dataset: str,
    log: Log,
    *,
    version: str = LATEST,
    bundle: str = "",
    output: Path | None = None,
) -> BatchRun:
    """Predict the rows of a dataset version.

    Args:
        target: where the environment lives.
        model: the model's name.
        environment: the environment's name.
        dataset: name of the dataset: the one that the model is trained on, or one of `batch.datasets`.
        log: receives each line of progress.
        version: snapshot, tag, landing file or `latest`.
        bundle: digest of the bundle that predicts; the live one by default.
        output: Parquet or CSV file to save the predictions to.

    Raises:
        MlopsError: the model is not released there or may not read the dataset, the bundle or the version does not
            exist, or the job failed.
    """
    if output is not None:
        check_output(output)
    declared = target.project.model(model)
    allowed = declared.predicted_datasets
    if dataset not in allowed:
        raise MlopsError(
            f"{model} may not predict {dataset}: expected {' or '.join(allowed)}",
            fix=f"list it in batch.datasets of models/{model}/model.yaml, and deploy",
        )
    descriptor, chosen = _prepare(target, model, environment, bundle)
    found = find_version(list_versions(open_table(descriptor, dataset)), version, dataset)
    given = VersionInput(dataset=dataset, snapshot=found.snapshot)
    return _run(target, model, environment, descriptor, PredictionRequest(bundle=chosen, version=given), log, output)


def _prepare(target: Target, model: str, environment: str, bundle: str) -> tuple[EnvironmentDescriptor, str]:
    """Return the descriptor of an environment that can predict, and the bundle to predict with.

    Raises:
        MlopsError: the model is not released there, no image is pinned, or the bundle cannot be used.
    """
    descriptor = target.descriptor(environment)
    if target.project.release(model, environment).bundle is None:
        raise MlopsError(
            f"{model} is not released in {environment}: expected a bundle in its release file, found none",
            fix="release one first: docs/first-release.md",
        )
    check_training_image(descriptor, "batch predictions run")
    chosen = bundle or live_bundle({environment: descriptor}, environment, model)
    if chosen is None:
        raise MlopsError(
            f"no bundle of {model} is live in {environment}: expected a verified deployment, found none",
            fix=f"deploy it, or name a bundle of its registry: --bundle (mlops history {model} --env {environment})",
        )
    if not bundles.exists(descriptor, model, chosen):
        known = ", ".join(bundles.list_digests(descriptor, model)[-5:]) or "none"
        raise MlopsError(
            f"the registry of {environment} has no bundle {chosen} of {model}: found {known}",
            fix="copy the digest from a release or a training run",
        )
    if reason := quarantined(descriptor, model).get(chosen):
        raise MlopsError(
            f"{chosen} of {model} is quarantined in {environment}: {reason}", fix="predict with another bundle"
        )
    return descriptor, chosen


def _upload(descriptor: EnvironmentDescriptor, model: str, file: Path) -> FileInput:
    """Upload a file under a name that its content determines, unless it is there already."""
    digest = digest_of_file(file)
    stem = _UNFIT.sub("-", file.stem)[:80].lstrip("-.") or "input"
    key = f"{predictions_name(model)}/{stem}-{digest.removeprefix('sha256:')[:12]}{INPUT_SUFFIX}"
    place = LandingBucket(descriptor.landing_bucket, descriptor.region)
    try:
        store.upload_new(place.landing_bucket, key, file, client=clients.client("s3", place.region))
    except store.PreconditionFailedError:
        pass
    except store.AccessDeniedError as error:
        raise store.AccessDeniedError(
            error.what, fix="sign in as a role that may add files to the landing bucket and start jobs"
        ) from None
    return FileInput(key=key, digest=digest)


def _run(
    target: Target,
    model: str,
    environment: str,
    descriptor: EnvironmentDescriptor,
    request: PredictionRequest,
    log: Log,
    output: Path | None,
) -> BatchRun:
    dataset = predictions_name(model)
    with target.using_cluster(environment):
        ended = run_job(
            descriptor.namespace,
            prediction_job_name(model),
            variables={PREDICTION_REQUEST: request.model_dump_json()},
            on_line=lambda line: log(f"| {line}"),
            deadline_seconds=target.project.model(model).batch.deadline_seconds + START_ALLOWANCE_SECONDS,
        )
    snapshot = _snapshot_of(ended, descriptor, dataset, request)
    rows = save_predictions(descriptor, dataset, snapshot, output) if output is not None else None
    return BatchRun(dataset, snapshot, request.bundle, rows)


def _snapshot_of(ended: JobRun, descriptor: EnvironmentDescriptor, dataset: str, request: PredictionRequest) -> str:
    """Return the snapshot that the job printed; if its log could not be read, the newest one of the same input."""
    if ended.log and (printed := _SNAPSHOT.fullmatch(ended.log[-1])):
        return printed[1]
    for version in list_versions(open_table(descriptor, dataset)):
        if (version.bundle, version.read) == (request.bundle, request.read):
            return version.snapshot
    raise MlopsError(
        f"the job {ended.name} succeeded, but {dataset} has no version of its predictions", fix="run the command again"
    )
