"""Training job: trains a model on one dataset version and registers a signed bundle."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model
from pipelines.declarations.names import Commit, training_name
from pipelines.declarations.project import Project
from pipelines.declarations.run_facts import facts_of_run
from pipelines.registry import bundles, evidence, runs
from pipelines.training.api import TrainedModel
from pipelines.training.isolated import train_isolated
from pipelines.training.mlflow_mirror import mirror_run
from pipelines.training.sent_rows import SentRows

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.ordered_rows import OrderedRows

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `pipelines`."""

CODE = ("declarations", "data", "registry", "serving/__init__.py", "serving/runtime.py", "training")
"""Files and folders of the package that a training run executes."""

REQUIREMENTS = Path("requirements") / "pipelines.txt"
"""Requirements of the training image."""

Trainer = Callable[[Model, Path, SentRows, Callable[[str], None]], AbstractContextManager[TrainedModel]]
"""Runs a model's training function, like `train_isolated`."""


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
    from pipelines.data.lineage import bundle_data, from_columns, lineage, table_data

    started = utc_timestamp()
    model = project.model(model_name)
    contract = project.contract(model.contract)
    source = table_data(descriptor, model.contract)
    product = bundle_data(descriptor, model.name)
    with (
        lineage(descriptor, training_name(model.name), [source], [product]) as events,
        _read_rows(descriptor, model, contract, run.snapshot) as (rows, version),
    ):
        facts = {"version": version.snapshot, "rows": version.rows, "contract": contract}
        facts |= {"sample": model.training.sample}
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


@contextmanager
def _read_rows(
    descriptor: EnvironmentDescriptor, model: Model, contract: Contract, snapshot: str | None
) -> Iterator[tuple[OrderedRows, DatasetVersion]]:
    """Read a dataset version by the engine that its contract names: into memory, or into a temporary file."""
    if contract.engine == "process":
        from pipelines.data.catalog import read_version
        from pipelines.training.training_set import in_memory

        rows, version = read_version(descriptor, contract.name, snapshot)
        yield in_memory(rows, model, contract), version
        return
    from pipelines.data.spark_session import open_spark
    from pipelines.training.spark_training_set import read_training_rows

    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        with open_spark() as spark:
            found = read_training_rows(spark, descriptor, model, contract, snapshot, Path(folder) / "rows.parquet")
        yield found


def utc_timestamp() -> str:
    """Return the present time as evidence has it: ISO 8601, in UTC, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def make_bundle(
    project: Project,
    model: Model,
    contract: Contract,
    rows: OrderedRows,
    version: DatasetVersion,
    image: str,
    say: Callable[[str], None],
    train: Trainer = train_isolated,
    *,
    must_confine: bool = True,
) -> tuple[Bundle, dict[str, bytes]]:
    """Train, evaluate, export, check and package a model, without effects outside this machine.

    By default, the training function runs in a separate process; see `pipelines.training.isolated`. Another one loads
    the ONNX model; see `pipelines.training.confined_model`. Everything else runs here: this process alone has the
    target of the holdout, and it never parses what training code has made.

    Args:
        project: the source.
        model: the model's declaration.
        contract: contract of its dataset.
        rows: rows of the dataset version, with their hashes; see `TrainingSet`.
        version: identifies the dataset version.
        image: digest of the training image.
        say: receives a line for each step.
        train: runs the training function.
        must_confine: whether a kernel that cannot confine the process that loads the model is an error.

    Returns:
        The manifest, and name → content of the bundle's files.

    Raises:
        MlopsError: the data or the model is not valid.
    """
    from pipelines.training.card import write_card
    from pipelines.training.confined_model import open_model
    from pipelines.training.drift_baseline import describe_baseline
    from pipelines.training.evaluate import Predictions, evaluate
    from pipelines.training.package import answer_holdout, golden_predictions, request_schema
    from pipelines.training.rows import text_features
    from pipelines.training.training_set import TrainingSet

    folder = project.models_folder / model.name
    source = source_of(project, model.name)
    data = TrainingSet(model, contract, rows)
    say(f"{data.holdout.training_rows} rows for training, {data.holdout.rows} in the holdout")
    with train(model, folder, data.training(), say) as trained:
        classes = _classes(model, trained)
        assert isinstance(trained.onnx, bytes)  # never an object that this process would have to read
        memory = "training.resources.memory"
        with open_model(trained.onnx, model.name, memory, must_confine=must_confine) as exported:
            graph = exported.check()
            schema = request_schema(model, contract, graph)
            onnx = exported.load(graph.inputs, graph.outputs)
            holdout = data.read_holdout()
            text = text_features(model, contract)
            answers = answer_holdout(model.task, trained, onnx, graph, holdout.features, text)
            golden = golden_predictions(schema, contract, onnx, answers)
    predictions = Predictions(_truth(model, holdout.target, classes), answers.predicted, classes)
    evaluation = evaluate(model, data.holdout, holdout.groups.to_pandas(), holdout.keys, predictions)
    say(_headline(model, evaluation))
    files = {
        "model.onnx": graph.content,
        "schema.json": canonical_json(schema.model_dump(mode="json")),
        "baseline.json": canonical_json(
            describe_baseline(model, contract, data.features, predictions).model_dump(mode="json")
        ),
        "evaluation.json": canonical_json(evaluation.model_dump(mode="json")),
        "golden.json": canonical_json(golden.model_dump(mode="json")),
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
