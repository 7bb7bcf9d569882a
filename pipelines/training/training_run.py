"""Training job: trains a model on one dataset version and registers a signed bundle."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.bundle import Bundle, BundledFile, DatasetVersion, Source
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import (
    Digest,
    canonical_json,
    digest_of_bytes,
    digest_of_file,
    digest_of_files,
    digest_of_folder,
    digest_of_value,
)
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation, Holdout
from pipelines.declarations.model import Model
from pipelines.declarations.names import Commit
from pipelines.declarations.project import Project
from pipelines.declarations.run_facts import facts_of_run
from pipelines.registry import bundles, evidence, runs
from pipelines.training.api import TrainedModel, TrainingData
from pipelines.training.isolated import train_isolated
from pipelines.training.mlflow_mirror import mirror_run

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `pipelines`."""

CODE = ("declarations", "data", "registry", "serving/__init__.py", "serving/runtime.py", "training")
"""Files and folders of the package that a training run executes."""

REQUIREMENTS = Path("requirements") / "pipelines.txt"
"""Requirements of the training image."""

Trainer = Callable[[Model, Path, TrainingData, Callable[[str], None]], AbstractContextManager[TrainedModel]]
"""Runs a model's training function, like `train_isolated`."""

SMALLEST_PART = 2
"""Minimum number of rows in the training data and in the holdout."""


@dataclass(frozen=True)
class TrainingRun:
    """One run of the job.

    Attributes:
        id: id of the run in the registry.
        commit: commit of the source.
        image: digest of the image it runs in.
        snapshot: snapshot of the dataset; None for the latest.
    """

    id: str
    commit: str
    image: str
    snapshot: str | None = None

    @classmethod
    def from_environ(cls, model: str) -> TrainingRun:
        """Read the run from RUN_ID, SOURCE_COMMIT, IMAGE_DIGEST and DATASET_SNAPSHOT.

        Raises:
            MlopsError: a variable is missing or not valid.
        """
        made = f"{model}-{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"
        return cls(
            id=runs.checked_run(os.environ.get("RUN_ID") or made),
            commit=_variable("SOURCE_COMMIT", Commit, "the commit of the source: 40 hexadecimal digits"),
            image=_variable("IMAGE_DIGEST", Digest, "the digest of the training image: sha256:…"),
            snapshot=os.environ.get("DATASET_SNAPSHOT") or None,
        )


def _variable(name: str, kind: Any, expected: str) -> str:
    value = os.environ.get(name, "")
    try:
        return str(TypeAdapter(kind).validate_python(value))
    except ValidationError:
        raise MlopsError(
            f"environment variable {name}: expected {expected}, found {value!r}",
            fix="start the job with `mlops train`, which sets it",
        ) from None


def run_training(
    project: Project, descriptor: EnvironmentDescriptor, model_name: str, run: TrainingRun, say: Callable[[str], None]
) -> str:
    """Train a model, register the signed bundle and return its digest.

    Idempotent: the same source, data and image give the same digest, so an interrupted run can be repeated.

    Args:
        project: the source.
        descriptor: the environment.
        model_name: the model's name.
        run: identifies this run.
        say: receives a line for each step.

    Raises:
        MlopsError: a declaration, the data or the model is not valid, or a service failed.
    """
    from pipelines.data.catalog import read_version
    from pipelines.data.lineage import bundle_data, from_columns, lineage, table_data

    started = utc_timestamp()
    model = project.model(model_name)
    contract = project.contract(model.contract)
    source = table_data(descriptor, model.contract)
    product = bundle_data(descriptor, model.name)
    with lineage(descriptor, f"train-{model.name}", [source], [product]) as events:
        rows, version = read_version(descriptor, model.contract, run.snapshot)
        facts = {"version": version.snapshot, "rows": version.rows, "contract": contract}
        events.inputs = [table_data(descriptor, model.contract, **facts)]
        say(f"{model.contract}: {version.rows} rows of snapshot {version.snapshot}")
        manifest, files = make_bundle(project, model, contract, rows, version, run.image, say)
        digest = bundles.push(descriptor, manifest, files)
        derived = {"prediction": from_columns(source, [*model.features, model.target])}
        events.outputs = [replace(product, version=digest, derived=derived)]
        say(f"registered in {descriptor.registry_bucket}")
        finished = utc_timestamp()
        build = evidence.Build(descriptor.name, run.commit, run.id, started, finished)
        evidence.attest(descriptor, manifest, digest_of_value(model.gates.model_dump(mode="json")), build)
        say(f"signed by the key of {descriptor.name}")
        evaluation = Evaluation.model_validate_json(files["evaluation.json"])
        made = facts_of_run(manifest, evaluation, started, finished, run.commit, image=run.image)
        runs.record_run(descriptor, model.name, run.id, digest, version.snapshot, made)
    mirror_run(os.environ, descriptor.name, run.id, digest, made, say)
    return digest


def utc_timestamp() -> str:
    """Return the present time as evidence has it: ISO 8601, in UTC, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def make_bundle(
    project: Project,
    model: Model,
    contract: Contract,
    rows: pa.Table,
    version: DatasetVersion,
    image: str,
    say: Callable[[str], None],
    train: Trainer = train_isolated,
) -> tuple[Bundle, dict[str, bytes]]:
    """Train, evaluate, export, check and package a model, without effects outside this machine.

    By default, the training function runs in a separate process; see `pipelines.training.isolated`. Everything else
    runs here.

    Args:
        project: the source.
        model: the model's declaration.
        contract: contract of its dataset.
        rows: rows of the dataset version.
        version: identifies the dataset version.
        image: digest of the training image.
        say: receives a line for each step.
        train: runs the training function.

    Returns:
        The manifest, and name → content of the bundle's files.

    Raises:
        MlopsError: the data or the model is not valid.
    """
    from pipelines.training.card import write_card
    from pipelines.training.drift_baseline import describe_baseline
    from pipelines.training.evaluate import Predictions, evaluate
    from pipelines.training.onnx_graph import check_graph
    from pipelines.training.package import answer_holdout, golden_predictions, request_schema
    from pipelines.training.rows import features_of, text_features

    folder = project.models_folder / model.name
    source = source_of(project, model.name)
    data = _split(model, contract, rows)
    say(f"{data.holdout.training_rows} rows for training, {data.holdout.rows} in the holdout")
    with train(model, folder, data.training, say) as trained:
        classes = _classes(model, trained)
        graph = check_graph(trained.onnx)
        schema = request_schema(model, contract, graph)
        answers = answer_holdout(model.task, trained, graph, data.features, text_features(model, contract))
    predictions = Predictions(_truth(model, data.target, classes), answers.predicted, classes)
    evaluation = evaluate(model, data.holdout, data.rows.to_pandas(), data.keys, predictions)
    say(_headline(model, evaluation))
    files = {
        "model.onnx": graph.content,
        "schema.json": canonical_json(schema.model_dump(mode="json")),
        "baseline.json": canonical_json(
            describe_baseline(model, contract, features_of(rows, model, contract), predictions).model_dump(mode="json")
        ),
        "evaluation.json": canonical_json(evaluation.model_dump(mode="json")),
        "golden.json": canonical_json(golden_predictions(schema, contract, graph, answers).model_dump(mode="json")),
        "card.md": write_card(model, contract, version, evaluation).encode(),
    }
    manifest = Bundle(
        model=model.name,
        task=model.task,
        files={
            name: BundledFile(sha256=digest_of_bytes(content), size=len(content)) for name, content in files.items()
        },
        source=source,
        contract=digest_of_file(project.contract_file(model.contract)),
        dataset=version,
        image=image,
        parameters=model.training.parameters,
        seed=model.training.seed,
    )
    return manifest, files


def source_of(project: Project, model: str) -> Source:
    """Compute the digests of the code that trains a model, from the files that run.

    Raises:
        MlopsError: the pinned requirements are missing.
    """
    requirements = project.root / REQUIREMENTS
    if not requirements.is_file():
        raise MlopsError(f"{requirements} does not exist", fix="restore it from git, or run `make lock`")
    return Source(
        model=digest_of_folder(project.models_folder / model, without=["releases"]),
        pipelines=digest_of_files({part: _digest_of(PACKAGE / part) for part in CODE}),
        requirements=digest_of_file(requirements),
    )


def _digest_of(path: Path) -> str:
    return digest_of_folder(path) if path.is_dir() else digest_of_file(path)


@dataclass(frozen=True)
class _Split:
    """The labelled rows, split into training data and holdout.

    Attributes:
        training: input of the training function.
        rows, features, target, keys: of the holdout, in the order of the dataset version.
        holdout: its description in the evaluation.
    """

    training: TrainingData
    rows: pa.Table
    features: pd.DataFrame
    target: pd.Series
    keys: np.ndarray[tuple[int], np.dtype[np.uint64]]
    holdout: Holdout


def _split(model: Model, contract: Contract, rows: pa.Table) -> _Split:
    import pyarrow.compute as pc

    from pipelines.training.leaked_rows import find_leaked, hash_examples
    from pipelines.training.rows import check_columns, features_of, target_of
    from pipelines.training.split import digest_of_keys, hash_keys, in_holdout

    check_columns(rows, model)
    labelled = rows.filter(pc.is_valid(rows.column(model.target)))
    settings = model.training
    keys = hash_keys(labelled, contract.primary_key)
    kept = in_holdout(keys, settings.seed, settings.holdout)
    features, target = features_of(labelled, model, contract), target_of(labelled, model, contract)
    if min(kept.sum(), (~kept).sum()) < SMALLEST_PART:
        raise MlopsError(
            f"{labelled.num_rows} labelled rows of {model.contract} for {model.name}: expected at least "
            f"{SMALLEST_PART} for training and {SMALLEST_PART} in the holdout, found {int((~kept).sum())} and "
            f"{int(kept.sum())}",
            fix="ingest more data, or change training.holdout in model.yaml",
        )
    leaked = find_leaked(hash_examples(features, target), kept)
    holdout = Holdout(
        share=settings.holdout,
        seed=settings.seed,
        rows=int(kept.sum()),
        training_rows=int((~kept).sum()),
        unlabelled_rows=rows.num_rows - labelled.num_rows,
        keys=digest_of_keys(keys[kept]),
        leaked_rows=int(leaked.sum()),
    )
    training = TrainingData(
        features=features[~kept].reset_index(drop=True),
        target=target[~kept].reset_index(drop=True),
        parameters=settings.parameters,
        seed=settings.seed,
    )
    return _Split(
        training,
        labelled.filter(kept),
        features[kept].reset_index(drop=True),
        target[kept].reset_index(drop=True),
        keys[kept],
        holdout,
    )


def _classes(model: Model, trained: TrainedModel) -> tuple[str | int, ...] | None:
    if model.task == "regression":
        return None
    classes = trained.classes or ()
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise MlopsError(
            f"classes of {model.name}: expected two or more different ones, found {list(classes)}",
            fix="pass `classes` to TrainedModel, in the order of the probabilities",
        )
    return tuple(int(c) if isinstance(c, int | np.integer) else str(c) for c in classes)


def _truth(
    model: Model, target: pd.Series, classes: tuple[str | int, ...] | None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if classes is None:
        return np.asarray(target, dtype=np.float64)
    index = {name: at for at, name in enumerate(classes)}
    unknown = sorted({str(value) for value in target if value not in index})
    if unknown:
        raise MlopsError(
            f"values of {model.target} in the holdout: expected {', '.join(str(name) for name in classes)}, which "
            f"{model.name} was trained on, found {', '.join(unknown[:5])}",
            fix="ingest more rows with these values, or exclude the values in the contract",
        )
    return np.array([index[value] for value in target], dtype=np.float64)


def _headline(model: Model, evaluation: Evaluation) -> str:
    figures = []
    for threshold in model.gates.thresholds:
        estimate = evaluation.metrics.get(threshold.metric)
        if estimate is not None and estimate.value is not None:
            figures.append(f"{threshold.metric} {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})")
    return "on the holdout: " + ", ".join(figures)
