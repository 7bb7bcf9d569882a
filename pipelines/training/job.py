"""The training job: one dataset version in, one signed bundle out."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from pipelines.declarations.project import Project
from pipelines.registry import bundles, evidence, runs
from pipelines.training.api import TrainedModel, TrainingData

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PACKAGE = Path(__file__).parents[1]
"""The package `pipelines` that runs."""

TAKING_PART = ("declarations", "data", "registry", "training")
"""The parts of it that a training run executes. The training image leaves some of the others out."""

REQUIREMENTS = Path("requirements") / "pipelines.txt"
"""What the training image installs."""

SMALLEST_PART = 2
"""Rows that training, and the holdout, have at least."""


@dataclass(frozen=True)
class Run:
    """One run of the job.

    Attributes:
        id: names it in the registry.
        commit: of the source, as git names it.
        image: digest of the image it runs in.
        snapshot: of the dataset, or None for the latest.
    """

    id: str
    commit: str
    image: str
    snapshot: str | None = None

    @classmethod
    def from_environ(cls, model: str) -> Run:
        """The run that the environment variables RUN_ID, SOURCE_COMMIT, IMAGE_DIGEST and DATASET_SNAPSHOT describe.

        Raises:
            MlopsError: a variable is missing or not well formed.
        """
        made = f"{model}-{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"
        return cls(
            id=runs.checked_run(os.environ.get("RUN_ID") or made),
            commit=_variable("SOURCE_COMMIT", evidence.Commit, "the commit of the source: 40 hexadecimal digits"),
            image=_variable("IMAGE_DIGEST", Digest, "the digest of the training image: sha256:…"),
            snapshot=os.environ.get("DATASET_SNAPSHOT") or None,
        )


def _variable(name: str, kind: Any, expected: str) -> str:
    value = os.environ.get(name, "")
    try:
        return str(TypeAdapter(kind).validate_python(value))
    except ValidationError:
        raise MlopsError(
            f"the environment variable {name} is {value!r}; expected {expected}",
            fix="start the job by `mlops train`; without it a bundle could not say what it was made by",
        ) from None


def run_training(
    project: Project, descriptor: EnvironmentDescriptor, model_name: str, run: Run, say: Callable[[str], None]
) -> str:
    """Train a model and register the signed bundle; its digest.

    A run that was interrupted is finished by running it again; the same source, data and image give the same digest.

    Args:
        project: the source.
        descriptor: the environment.
        model_name: which model.
        run: what is known of this run.
        say: told of each step.

    Raises:
        MlopsError: a declaration, the data or the model is not fit, or a service refused.
    """
    from pipelines.data.catalog import read_version
    from pipelines.data.lineage import Data, lineage, table_data

    started = _now()
    model = project.model(model_name)
    contract = project.contract(model.contract)
    source = table_data(descriptor, model.contract)
    product = Data(f"s3://{descriptor.registry_bucket}", f"bundles/{model.name}")
    with lineage(descriptor, f"train-{model.name}", [source], [product]) as told:
        rows, version = read_version(descriptor, model.contract, run.snapshot)
        told.inputs = [table_data(descriptor, model.contract, version=version.snapshot, rows=version.rows)]
        say(f"{model.contract}: {version.rows} rows of snapshot {version.snapshot}")
        manifest, files = make_bundle(project, model, contract, rows, version, run.image, say)
        digest = bundles.push(descriptor, manifest, files)
        told.outputs = [replace(product, version=digest)]
        say(f"registered in {descriptor.registry_bucket}")
        build = evidence.Build(descriptor.name, run.commit, run.id, started, _now())
        evidence.attest(descriptor, manifest, digest_of_value(model.gates.model_dump(mode="json")), build)
        say(f"signed by the key of {descriptor.name}")
        runs.record_run(descriptor, model.name, run.id, digest)
    return digest


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def make_bundle(
    project: Project,
    model: Model,
    contract: Contract,
    rows: pa.Table,
    version: DatasetVersion,
    image: str,
    say: Callable[[str], None],
) -> tuple[Bundle, dict[str, bytes]]:
    """Everything of a training run that has no effect outside it: train, evaluate, export, check, pack.

    Returns:
        The manifest, and name → content of the bundle's files.

    Raises:
        MlopsError: the data or the model is not fit.
    """
    from pipelines.training.baseline import describe
    from pipelines.training.card import write_card
    from pipelines.training.evaluate import Predictions, evaluate
    from pipelines.training.graph import Runtime, check_graph
    from pipelines.training.package import answer, golden_predictions, request_schema, text_features
    from pipelines.training.rows import features_of

    folder = project.models_folder / model.name
    source = source_of(project, model.name)
    data = _divide(model, contract, rows)
    say(f"{data.holdout.training_rows} rows to train on, {data.holdout.rows} kept from training")
    trained = _train(model, folder, data)
    classes = _classes(model, trained)
    graph = check_graph(trained.onnx)
    schema = request_schema(model, contract, graph)
    text = text_features(model, contract)
    answers = answer(model.task, trained, Runtime(graph), data.features, text)
    predictions = Predictions(_truth(model, data.target, classes), answers.predicted, classes)
    evaluation = evaluate(model, data.holdout, data.rows.to_pandas(), data.keys, predictions)
    say(_headline(model, evaluation))
    files = {
        "model.onnx": graph.content,
        "schema.json": canonical_json(schema.model_dump(mode="json")),
        "baseline.json": canonical_json(
            describe(model, contract, features_of(rows, model, contract), predictions).model_dump(mode="json")
        ),
        "evaluation.json": canonical_json(evaluation.model_dump(mode="json")),
        "golden.json": canonical_json(golden_predictions(schema, answers).model_dump(mode="json")),
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
    """The digests of the code that trains a model: what runs, not what a commit says.

    Raises:
        MlopsError: the pinned requirements are missing.
    """
    requirements = project.root / REQUIREMENTS
    if not requirements.is_file():
        raise MlopsError(f"there is no {requirements}", fix="restore it from git, or make it: make lock")
    return Source(
        model=digest_of_folder(project.models_folder / model, without=["releases"]),
        pipelines=digest_of_files({part: digest_of_folder(PACKAGE / part) for part in TAKING_PART}),
        requirements=digest_of_file(requirements),
    )


@dataclass(frozen=True)
class _Divided:
    """The labelled rows, divided.

    Attributes:
        training: what the training function gets.
        rows, features, target, keys: of the holdout, in the order of the dataset version.
        holdout: what is said of it.
    """

    training: TrainingData
    rows: pa.Table
    features: pd.DataFrame
    target: pd.Series
    keys: np.ndarray[tuple[int], np.dtype[np.uint64]]
    holdout: Holdout


def _divide(model: Model, contract: Contract, rows: pa.Table) -> _Divided:
    import pandas as pd
    import pyarrow.compute as pc

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
            f"{labelled.num_rows} labelled rows of {model.contract} leave {int((~kept).sum())} to train {model.name} "
            f"on and {int(kept.sum())} to evaluate it; expected at least {SMALLEST_PART} of each",
            fix="ingest more data, or change training.holdout in model.yaml",
        )
    whole = pd.util.hash_pandas_object(features.assign(**{f"{model.target} (target)": target}), index=False).to_numpy()
    holdout = Holdout(
        share=settings.holdout,
        seed=settings.seed,
        rows=int(kept.sum()),
        training_rows=int((~kept).sum()),
        unlabelled_rows=rows.num_rows - labelled.num_rows,
        keys=digest_of_keys(keys[kept]),
        leaked_rows=int(np.isin(whole[kept], whole[~kept]).sum()),
    )
    training = TrainingData(
        features=features[~kept].reset_index(drop=True),
        target=target[~kept].reset_index(drop=True),
        parameters=settings.parameters,
        seed=settings.seed,
    )
    return _Divided(
        training,
        labelled.filter(kept),
        features[kept].reset_index(drop=True),
        target[kept].reset_index(drop=True),
        keys[kept],
        holdout,
    )


def _train(model: Model, folder: Path, data: _Divided) -> TrainedModel:
    from pipelines.training.load import training_function

    with training_function(model, folder) as train, _repeatable(model.training.seed):
        trained = train(data.training)
    if not isinstance(trained, TrainedModel):
        raise MlopsError(
            f"{model.training.entrypoint} of {model.name} returned a {type(trained).__name__}; expected a TrainedModel",
            fix="return TrainedModel(predict, onnx), or from_sklearn(estimator, data.features)",
        )
    return trained


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seeds the global generators, and keeps numeric libraries to one thread: sums then have one order."""
    import scipy.linalg  # noqa: F401 - it brings a BLAS of its own, and only what is loaded can be limited
    from threadpoolctl import threadpool_limits

    random.seed(seed)
    np.random.seed(seed)
    with threadpool_limits(limits=1):
        yield


def _classes(model: Model, trained: TrainedModel) -> tuple[str | int, ...] | None:
    if model.task == "regression":
        return None
    classes = trained.classes or ()
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise MlopsError(
            f"the classifier {model.name} names the classes {list(classes)}; expected two or more different ones",
            fix="give TrainedModel its classes, in the order of the probabilities",
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
            f"the holdout has values of {model.target} that {model.name} has not learned: {', '.join(unknown[:5])}; "
            f"it knows {', '.join(str(name) for name in classes)}",
            fix="ingest more rows of them, or leave them out in the contract",
        )
    return np.array([index[value] for value in target], dtype=np.float64)


def _headline(model: Model, evaluation: Evaluation) -> str:
    figures = []
    for threshold in model.gates.thresholds:
        estimate = evaluation.metrics.get(threshold.metric)
        if estimate is not None and estimate.value is not None:
            figures.append(f"{threshold.metric} {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})")
    return "on the holdout: " + ", ".join(figures)
