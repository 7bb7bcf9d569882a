"""Predict a file or a dataset version with one bundle, and append the predictions to their table.

The rows are read, predicted and written in parts, so memory does not grow with the input. One commit adds them all. It
carries the digest of the input and the bundle, so the job can be killed at any time and run again: before the commit
the table has none of the rows, and after it the batch is found and not predicted again.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.data.catalog import (
    BUNDLE,
    CONTRACT,
    INPUT,
    PRIMARY_KEY,
    SOURCE,
    add_data_files,
    evolve,
    find_batch,
    open_or_make_table,
    open_table,
    snapshot_of,
)
from pipelines.data.catalogue_properties import changed_properties
from pipelines.data.data_files import write_data_files
from pipelines.data.glue_client import s3
from pipelines.data.lineage import Data, bundle_data, from_columns, landing_data, lineage, table_data
from pipelines.data.row_streams import stream_rows
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file, digest_of_value
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model
from pipelines.declarations.names import prediction_job_name, predictions_name
from pipelines.declarations.plurals import counted
from pipelines.declarations.predictions_contract import (
    PREDICTION_COLUMN,
    batch_names,
    copied_columns,
    predictions_contract,
)
from pipelines.declarations.project import Project
from pipelines.prediction.prediction_inputs import (
    RefusedInputError,
    check_columns_of,
    in_parts,
    open_file,
    read_file,
)
from pipelines.prediction.prediction_request import PredictionRequest
from pipelines.prediction.prediction_rows import Counts, PredictionWriter, probability_columns, with_probabilities
from pipelines.registry import store
from pipelines.registry.evidence import VerifiedBundle, verify_bundle
from pipelines.serving.predictor import LoadModel
from pipelines.serving.row_scoring import RowScorer
from pipelines.training.confined_model import open_model
from pipelines.training.isolation import is_enforceable

if TYPE_CHECKING:
    from pyiceberg.table import Table

Log = Callable[[str], None]

MOST_ATTEMPTS = 20
"""Maximum number of attempts to commit while other batch predictions commit first. No attempt predicts again."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts."""

ROWS_A_LINE = 1_000_000
"""Rows between two lines of progress."""

MOST_REASONS = 10
"""Reasons of refused rows that the log lists."""


@dataclass(frozen=True)
class _Input:
    """What is predicted.

    Attributes:
        name: its name, for messages.
        schema: its columns.
        parts: read columns of it, in parts.
        contract: contract of the dataset, if it is a version; None for a file.
        data: for the lineage.
        properties: snapshot properties that name it.
    """

    name: str
    schema: pa.Schema
    parts: Callable[[list[str]], Iterator[pa.RecordBatch]]
    contract: Contract | None
    data: Data
    properties: dict[str, str]


def run_prediction(
    project: Project, descriptor: EnvironmentDescriptor, model_name: str, request: PredictionRequest, say: Log
) -> str:
    """Predict what a request asks for, and return the snapshot that holds the predictions.

    Idempotent: the same input, bundle and columns are predicted once.

    Args:
        project: the declarations.
        descriptor: the environment.
        model_name: name of the model.
        request: what to predict, and with which bundle.
        say: receives each line of progress.

    Raises:
        RefusedInputError: the input lacks a column or has one of a wrong type, cannot be read, has no rows, or no row
            of it can be predicted.
        MlopsError: the bundle or the version does not exist, or another writer kept committing first.
    """
    model = project.model(model_name)
    source = project.contract(model.contract)
    bundle = verify_bundle(descriptor, model_name, request.bundle, all_runs=False)
    if not is_enforceable():
        say(f"{sys.platform} cannot confine the model: it has no credentials, but reads files and the network")
    product = bundle_data(descriptor, model_name, version=bundle.manifest.digest)
    target = table_data(descriptor, predictions_name(model_name))
    with (
        tempfile.TemporaryDirectory(prefix="predict-") as folder,
        lineage(descriptor, prediction_job_name(model_name), [product], [target]) as run,
        open_model(bundle.files["model.onnx"], model_name, "batch.resources.memory") as opened,
    ):
        given = _open(project, descriptor, model, request, Path(folder))
        run.inputs = [given.data, product]
        prediction = _Prediction(descriptor, model, source, bundle, given, lambda _, *ends: opened.load(*ends))
        snapshot, counts = prediction.run(say)
        derived = {PREDICTION_COLUMN: from_columns(given.data, list(model.features))}
        derived |= {name: from_columns(given.data, [column]) for column, name in prediction.copied.items()}
        columns = {name: column.stored_as for name, column in prediction.contract.columns.items()}
        rows = counts.rows if counts is not None else None
        run.outputs = [replace(target, version=snapshot, rows=rows, columns=columns, derived=derived)]
    return snapshot


class _Prediction:
    """One batch prediction.

    Attributes:
        copied: column of the input → column of the table.
        contract: contract of the table, with a column for each class.
    """

    def __init__(
        self,
        descriptor: EnvironmentDescriptor,
        model: Model,
        source: Contract,
        bundle: VerifiedBundle,
        given: _Input,
        load: LoadModel,
    ) -> None:
        self._descriptor = descriptor
        self._given = given
        self._bundle = bundle.manifest.digest
        self._scorer = RowScorer(bundle.manifest, bundle.files, load)
        self.copied = copied_columns(source, read=given.contract)
        self._personal = {
            name
            for contract in (source, given.contract)
            if contract is not None
            for name, column in contract.columns.items()
            if is_personal(column)
        }
        # What was personal when the bundle was trained stays so, also if the contract has forgotten it.
        self._personal |= {
            column.name for tensor in self._scorer.schema.inputs for column in tensor.columns if column.personal
        }
        classes = parse(bundle.files["evaluation.json"], Evaluation, Path("evaluation.json")).classes
        self._probabilities = probability_columns(self._scorer.schema.outputs, classes)
        self.contract = with_probabilities(predictions_contract(model, source), self._probabilities)
        self._dataset = self.contract.name
        check_columns_of(
            given.name,
            given.schema,
            self._scorer.schema.inputs,
            {name: source.columns[name].stored_as for name in self.copied},
        )
        read = given.properties[INPUT]
        self._batch = digest_of_value({"bundle": self._bundle, "input": read, "columns": dict(self.copied)})

    def run(self, say: Log) -> tuple[str, Counts | None]:
        """Predict, unless the table has the predictions.

        Returns:
            The snapshot, and the counts of rows; None if nothing was left to do.
        """
        table = evolve(open_or_make_table(self._descriptor, self.contract), self.contract)
        if (done := find_batch(table, self._batch)) is not None:
            say(f"{self._given.name}: predicted already, snapshot {done.snapshot_id}")
            return str(done.snapshot_id), None
        paths, counts = self._write(table, say)
        say(f"{self._given.name}: {counts.rows - counts.refused} of {counted(counts.rows, 'row')} predicted")
        for what, rows in counts.reasons.most_common(MOST_REASONS):
            say(f"  refused {counted(rows, 'row')}: {what}")
        if counts.refused == counts.rows:
            raise RefusedInputError(
                f"{self._given.name} cannot be predicted: expected a row that keeps the request schema, found none in "
                f"{counts.rows}",
                fix="correct the columns that the lines above name",
            )
        return self._commit(table, paths, say), counts

    def _write(self, table: Table, say: Log) -> tuple[list[str], Counts]:
        """Predict every row, and write the data files."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        wanted = self.contract.columns
        whole = schema_to_pyarrow(table.schema(), include_field_ids=False)
        schema = pa.schema([field for field in whole if field.name in wanted])
        short = batch_names(self._batch)[0]
        writer = PredictionWriter(
            self._given.name,
            self._scorer,
            schema,
            self.copied,
            self._probabilities,
            self._personal,
            short,
            self._bundle,
        )
        features = [column.name for tensor in self._scorer.schema.inputs for column in tensor.columns]
        columns = list(dict.fromkeys([*features, *self.copied]))
        parts = in_parts(self._given.name, self._given.parts(columns))
        rows = pa.RecordBatchReader.from_batches(schema, _predicted(writer, parts, say))
        return write_data_files(self._descriptor, table, rows), writer.counts

    def _commit(self, table: Table, paths: list[str], say: Log) -> str:
        """Add the data files in one commit; try again while others commit first."""
        from pyiceberg.exceptions import CommitFailedException

        properties = {
            **self._given.properties,
            BUNDLE: self._bundle,
            CONTRACT: self.contract.version,
            PRIMARY_KEY: ",".join(self.contract.primary_key),
        }
        for attempt in range(1, MOST_ATTEMPTS + 1):
            table = table.refresh()
            if (done := find_batch(table, self._batch)) is not None:
                say(f"{self._given.name}: another job has predicted it, snapshot {done.snapshot_id}")
                return str(done.snapshot_id)
            described = changed_properties(table, self.contract)
            try:
                return add_data_files(table, paths, self._batch, properties, described=described)
            except CommitFailedException:
                pass
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**attempt)))  # noqa: S311 - not for security
        raise MlopsError(
            f"{MOST_ATTEMPTS} commits to the table of {self._dataset} conflicted with other writers",
            fix="run the command again when fewer batch predictions run",
        )


def _predicted(writer: PredictionWriter, parts: Iterator[pa.RecordBatch], say: Log) -> Iterator[pa.RecordBatch]:
    """Predict each part, and log the progress."""
    for part in parts:
        before = writer.counts.rows // ROWS_A_LINE
        yield writer.predict(part)
        if writer.counts.rows // ROWS_A_LINE > before:
            say(f"{writer.counts.rows} rows so far, {writer.counts.refused} of them refused")


def _open(
    project: Project, descriptor: EnvironmentDescriptor, model: Model, request: PredictionRequest, folder: Path
) -> _Input:
    """Open what a request names.

    Raises:
        RefusedInputError: it cannot be predicted.
        MlopsError: it does not exist, or cannot be read.
    """
    if request.file is not None:
        key, path = request.file.key, folder / "input.parquet"
        name = key.rpartition("/")[2]
        store.download(descriptor.landing_bucket, key, path, client=s3(descriptor))
        if (found := digest_of_file(path)) != request.file.digest:
            raise RefusedInputError(
                f"s3://{descriptor.landing_bucket}/{key}: expected {request.file.digest}, found {found}",
                fix="rename the file, and run the command again: another file has this key",
            )
        schema, rows = open_file(name, path)
        data = landing_data(descriptor, key, version=request.file.digest, rows=rows, columns=_types_of(schema))
        properties = {INPUT: request.read, SOURCE: key}
        return _Input(name, schema, lambda columns: read_file(name, path, columns), None, data, properties)
    assert request.version is not None
    dataset = request.version.dataset
    if dataset not in model.predicted_datasets:
        raise RefusedInputError(
            f"{model.name} may not predict {dataset}: expected {', '.join(model.predicted_datasets)}",
            fix=f"list it in batch.datasets of models/{model.name}/model.yaml, and deploy",
        )
    return _open_version(project, descriptor, dataset, request)


def _open_version(
    project: Project, descriptor: EnvironmentDescriptor, dataset: str, request: PredictionRequest
) -> _Input:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    assert request.version is not None
    table = open_table(descriptor, dataset)
    snapshot = snapshot_of(table, descriptor.name, dataset, request.version.snapshot)
    name = f"{dataset} at {snapshot.snapshot_id}"
    scan = table.scan(snapshot_id=snapshot.snapshot_id)
    schema = schema_to_pyarrow(scan.projection(), include_field_ids=False)

    def parts(columns: list[str]) -> Iterator[pa.RecordBatch]:
        return stream_rows(table, scan.select(*columns))[1]

    data = table_data(descriptor, dataset, version=str(snapshot.snapshot_id), columns=_types_of(schema))
    return _Input(name, schema, parts, project.contract(dataset), data, {INPUT: request.read})


def _types_of(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}
