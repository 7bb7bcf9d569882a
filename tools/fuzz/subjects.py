"""What is fuzzed: for each kind of input, how to make one, and how the product judges it.

Each subject gives the input to the product as a user's command or job does. `judge` returns whether it is accepted; a
refusal is an error for people (`MlopsError`, or a client error of HTTP). Any other exception is a fault.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import random
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse_yaml
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.run_facts import RunFacts
from tools.fuzz.mutations import NUMBERS, TEXTS, Mutator

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "project"
MODEL, DATASET = "diabetes-progression", "diabetes-patients"

LONGEST_MESSAGE = 100_000
"""Maximum length of an error for people, in characters."""


class FaultError(AssertionError):
    """The product accepted or answered what it should not."""


class Subject(ABC):
    """One kind of input.

    Args:
        scratch: an empty folder that the subject may use.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @abstractmethod
    def make(self, rng: random.Random) -> Any:
        """Make an input."""

    @abstractmethod
    def use(self, given: Any) -> None:
        """Give an input to the product.

        Raises:
            MlopsError: the product refuses it.
        """

    def judge(self, given: Any) -> bool:
        """Return whether the product accepts an input.

        Raises:
            Exception: a fault of the product.
        """
        try:
            self.use(given)
        except MlopsError as error:
            text = str(error)
            if not error.what or len(text) > LONGEST_MESSAGE or "Traceback (most recent" in text:
                raise FaultError(f"not an error for people: {text[:500]!r}") from error
            return False
        return True


class _Declared(Subject):
    """A file of the sample project, changed."""

    file = ""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.root = shutil.copytree(SAMPLE, scratch / "project")
        self.path = self.root / self.file
        self.documents = [yaml.safe_load(self.path.read_text())]

    def make(self, rng: random.Random) -> bytes:
        return Mutator(rng).yaml(rng.choice(self.documents))

    def use(self, given: bytes) -> None:
        self.path.write_bytes(given)
        self.check(Project(self.root))

    @abstractmethod
    def check(self, project: Project) -> None:
        """Read the file as commands do."""


class ContractFile(_Declared):
    """A contract. One that is accepted must be usable: by ingestion, by the table, and in a comparison."""

    file = f"data-contracts/{DATASET}.odcs.yaml"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.original = Project(self.root).contract(DATASET)
        self.documents += [_every_rule()] * 3

    def check(self, project: Project) -> None:
        from infra.components.glue_columns import glue_type
        from pipelines.data.batch import LandingFileError
        from pipelines.data.columns import iceberg_schema
        from pipelines.data.landing import check_file
        from pipelines.data.schema_compatibility import breaking_changes, unannounced_changes
        from pipelines.data.validate import check_patterns

        contract = project.contract(DATASET)
        check_patterns(contract)
        # From here on, the contract is accepted: `mlops validate` reads no more.
        try:
            iceberg_schema(contract)
            assert all(glue_type(column) for column in contract.columns.values())
            assert contract.ingest_schedule is None or len(contract.ingest_schedule.split()) == 5
            assert 0 <= contract.maximum_quarantined <= 100
            assert contract.primary_key
            for old, new in ((self.original, contract), (contract, self.original), (contract, contract)):
                breaks = breaking_changes(old, new)
                assert old is not new or not breaks, breaks
                unannounced_changes(old, new, set(contract.columns))
            file = self.scratch / "batch.csv"
            file.write_text("".join(",".join(row) + "\n" for row in self._batch(contract)))
            with contextlib.suppress(LandingFileError):
                check_file(contract, file)
        except MlopsError as error:
            raise FaultError(f"a valid contract cannot be used: {error}") from error

    def _batch(self, contract: Contract) -> list[list[str]]:
        """Return a header and rows with a good value in most places."""
        good = {
            "string": "A100",
            "integer": "1",
            "number": "50.5",
            "boolean": "true",
            "date": "2026-01-31",
            "timestamp": "2026-01-31T12:00:00Z",
        }
        rows = [[good[column.logical_type] for column in contract.columns.values()] for _ in range(3)]
        return [list(contract.columns), *rows]


def _every_rule() -> dict[str, Any]:
    """Return a contract with every rule that the product knows."""
    values = {"metric": "invalidValues", "arguments": {"validValues": ["A100", "B200"]}, "mustBe": 0}
    columns = [
        {"name": "id", "logicalType": "integer", "primaryKey": True, "required": True},
        {"name": "part", "logicalType": "string", "primaryKey": True, "primaryKeyPosition": 2, "unique": True},
        {"name": "device", "logicalType": "string", "quality": [values]},
        {
            "name": "code",
            "logicalType": "string",
            "logicalTypeOptions": {"minLength": 2, "maxLength": 9, "pattern": "[A-Z0-9]+"},
        },
        {
            "name": "dose",
            "logicalType": "number",
            "physicalType": "float",
            "logicalTypeOptions": {"exclusiveMinimum": 0.1, "maximum": 99.9},
        },
        {"name": "size", "logicalType": "integer", "physicalType": "int", "enum": [{"value": 1}, {"value": 2}]},
        {"name": "smoker", "logicalType": "boolean", "classification": "protected"},
        {"name": "seen", "logicalType": "date", "logicalTypeOptions": {"minimum": "2020-01-01"}},
        {"name": "sent", "logicalType": "timestamp", "logicalTypeOptions": {"maximum": "2030-01-01T00:00:00Z"}},
        {
            "name": "note",
            "logicalType": "string",
            "quality": [{"metric": "nullValues", "mustBeLessThan": 50, "unit": "percent"}],
        },
    ]
    quality = [
        {"metric": "rowCount", "mustBeGreaterThan": 0},
        {"metric": "duplicateValues", "arguments": {"properties": ["device", "dose"]}, "mustBeLessOrEqualTo": 3},
    ]
    return {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": "urn:fuzz",
        "name": DATASET,
        "version": "1.2.3",
        "status": "active",
        "schema": [{"name": DATASET, "properties": columns, "quality": quality}],
        "slaProperties": [{"property": "frequency", "value": 2, "unit": "h"}],
        "customProperties": [{"property": "maximumQuarantinedPercent", "value": 5}],
    }


class ModelFile(_Declared):
    """A model declaration. One that is accepted must be usable to evaluate predictions and to format its bounds."""

    file = f"models/{MODEL}/model.yaml"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        classifier = json.loads(json.dumps(self.documents[0]))
        classifier |= {"task": "classification", "target": "sex", "features": ["age", "bmi"], "protected": ["sex"]}
        classifier["gates"] |= {
            "thresholds": [{"metric": "accuracy", "minimum": 0.5}],
            "champion": {"metric": "roc_auc", "maximum_regression": 0.1},
            "fairness": [{"attribute": "sex", "metric": "recall", "maximum_ratio": 1.5}],
        }
        self.documents.append(classifier)

    @cached_property
    def rows(self) -> Any:
        from pipelines.data.local_rows import find_sample, read_good_rows

        sample = Project(SAMPLE)
        return read_good_rows(sample.contract(DATASET), find_sample(sample, DATASET))[0].slice(0, 40)

    def check(self, project: Project) -> None:
        model = project.model(MODEL)
        try:
            self._evaluate(project, model)
        except MlopsError as error:
            # The data may not fit; the training job says so, and names the column.
            if not any(name in error.what for name in (model.target, *model.features)):
                raise FaultError(f"a valid model cannot be used: {error}") from error

    def _evaluate(self, project: Project, model: Any) -> None:
        import numpy as np

        from pipelines.declarations.bundle import DatasetVersion, Source
        from pipelines.declarations.digests import digest_of_bytes
        from pipelines.declarations.evaluation import Holdout
        from pipelines.promotion.experiment import Experiment, describe_experiment, judge_experiment
        from pipelines.promotion.facts import TrialResult
        from pipelines.training.evaluate import Predictions, evaluate
        from pipelines.training.rows import check_columns, features_of, target_of
        from pipelines.training.split import hash_keys

        contract = project.contract(model.contract)
        check_columns(self.rows.column_names, model)
        features_of(self.rows, model, contract)
        target_of(self.rows, model, contract)
        count = self.rows.num_rows
        holdout = Holdout(
            share=0.3, seed=1, rows=count, training_rows=9, unlabelled_rows=0, keys=digest_of_bytes(b""), leaked_rows=0
        )
        truth = np.arange(count) % 2 * 1.0
        predicted = truth + 0.1 if model.task == "regression" else np.stack([1 - truth * 0.8, truth * 0.8], axis=1)
        classes = None if model.task == "regression" else (0, 1)
        keys = hash_keys(self.rows, contract.primary_key)
        evaluation = evaluate(model, holdout, self.rows.to_pandas(), keys, Predictions(truth, predicted, classes))
        trial = TrialResult(version="a", serving_version="a", problem="", golden_rows=1, p99_ms=1.0, requests=300)
        verdicts = judge_experiment(model, evaluation, trial)
        digest = holdout.keys
        facts = RunFacts(
            model=model.name,
            task=model.task,
            started=None,
            finished=None,
            commit=None,
            image=None,
            source=Source(model=digest, pipelines=digest, requirements=digest),
            contract=digest,
            dataset=DatasetVersion(dataset=contract.name, table="t", snapshot="1", content=digest, rows=count),
            parameters={},
            seed=1,
            training_rows=9,
            holdout_rows=count,
            holdout=digest,
            metrics={},
        )
        assert describe_experiment(Experiment(model, facts, evaluation, verdicts))


class ReleaseFile(_Declared):
    """A release file."""

    file = f"models/{MODEL}/releases/staging.yaml"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        some, other = ("sha256:" + digit * 64 for digit in "ab")
        self.documents += [self.documents[0] | {"bundle": some, "replaces": to} for to in (None, other)]
        self.documents.append(self.documents[0] | {"replaces": some})

    def check(self, project: Project) -> None:
        from pipelines.declarations.project import render_release

        release = project.release(MODEL, "staging")
        # What a command writes is what it reads.
        self.path.write_text(render_release(release))
        if project.release(MODEL, "staging") != release:
            raise FaultError("the release is another one after it was written")


class EnvironmentFile(_Declared):
    """The configuration of an environment, checked with the whole project."""

    file = "Pulumi.staging.yaml"

    def check(self, project: Project) -> None:
        from pipelines.declarations.validation import describe_order, validate_project

        validate_project(project)
        assert describe_order(project)


class LandingFile(Subject):
    """A data file of every format, with values of every kind."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        document = _every_rule()
        document["customProperties"][0]["value"] = 50
        self.contract = Contract.model_validate_json(json.dumps(document))
        self.columns = list(self.contract.columns)
        self.path = scratch / "landing"

    def make(self, rng: random.Random) -> tuple[str, bytes]:
        suffix = rng.choice((".csv", ".csv", ".jsonl", ".jsonl", ".parquet"))
        rows = [self._row(rng, number) for number in range(rng.choice((0, 1, 2, 5, 20)))]
        write = {".csv": self._csv, ".jsonl": self._json_lines, ".parquet": self._parquet}[suffix]
        content = write(rng, rows)
        return suffix, Mutator(rng).content(content) if rng.randrange(3) == 0 else content

    def _row(self, rng: random.Random, number: int) -> list[Any]:
        good = [number, f"p{number}", "A100", "AB1", 1.5, 1, True, "2026-01-31", "2026-01-31T12:00:00Z", "n"]
        while rng.randrange(3) == 0:
            good[rng.randrange(len(good))] = rng.choice((*NUMBERS, *TEXTS, None, True, float("nan"), [1], {"a": 1}))
        return good

    def _csv(self, rng: random.Random, rows: list[list[Any]]) -> bytes:
        import csv

        text = io.StringIO()
        writer = csv.writer(text, lineterminator=rng.choice(("\n", "\r\n", "\n\n")))
        writer.writerows([self._header(rng), *rows])
        return text.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")

    def _json_lines(self, rng: random.Random, rows: list[list[Any]]) -> bytes:
        header = self._header(rng)
        return b"".join(json.dumps(dict(zip(header, row, strict=False))).encode() + b"\n" for row in rows)

    def _parquet(self, rng: random.Random, rows: list[list[Any]]) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds: list[Any] = [pa.int64(), pa.string(), pa.string(), pa.string(), pa.float32(), pa.int32(), pa.bool_()]
        kinds += [pa.date32(), pa.timestamp("us"), pa.string()]
        if rng.randrange(2):
            other = (pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float16(), pa.date64(), pa.time64("us"))
            others = (*other, pa.decimal128(38, 2), pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.list_(pa.int8()))
            kinds[rng.randrange(len(kinds))] = rng.choice(others)
        columns: dict[str, Any] = {}
        for index, (name, kind) in enumerate(zip(self._header(rng), kinds, strict=True)):
            values = [_native(row[index], kind) for row in rows]
            try:
                columns[name] = pa.array(values, kind)
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                columns[name] = pa.array([None if value is None else str(value) for value in values], pa.string())
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression=rng.choice(("snappy", "zstd", "none")))
        return sink.getvalue()

    def _header(self, rng: random.Random) -> list[str]:
        names = list(self.columns)
        if rng.randrange(12) == 0:
            names[rng.randrange(len(names))] = rng.choice(TEXTS)
        return names

    def use(self, given: tuple[str, bytes]) -> None:
        from pipelines.data.landing import check_file

        suffix, content = given
        path = self.path.with_suffix(suffix)
        path.write_bytes(content)
        found = check_file(self.contract, path)
        if found.good + found.quarantined != found.rows:
            raise FaultError(f"rows are lost: {found}")


def _native(value: Any, kind: Any) -> Any:
    """Return a text as a date or timestamp if a column of this kind holds such values and it is one."""
    import pyarrow as pa

    if not isinstance(value, str) or not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return moment.date() if pa.types.is_date(kind) else moment


class InferenceRequest(Subject):
    """A request to the inference server: its body, its headers and its path."""

    def __init__(self, scratch: Path) -> None:
        from tests.pipelines.serving.bundles import linear_bundle, mixed_bundle
        from tests.pipelines.serving.conftest import features, mixture, served

        super().__init__(scratch)
        self.served = tuple(served(bundle(), **self.options()) for bundle in (linear_bundle, mixed_bundle))
        self.bodies = (features(), mixture())

    def options(self) -> dict[str, Any]:
        """Return further arguments of the servers."""
        return {}

    def make(self, rng: random.Random) -> tuple[int, bytes, list[tuple[str, str]]]:
        which = rng.randrange(2)
        mutator = Mutator(rng)
        body = self.bodies[which] if rng.randrange(8) == 0 else mutator.tree(self.bodies[which])
        content = json.dumps(body).encode()
        headers = [("content-type", "application/json")]
        if rng.randrange(4) == 0:
            name = rng.choice(
                ("content-type", "content-encoding", "traceparent", "inference-header-content-length", "x")
            )
            text = rng.choice(
                ("application/json", "gzip", "application/octet-stream", "0", "-1", "9" * 400, "00-a-b-c")
            )
            headers.append((name, text))
        return which, mutator.content(content) if rng.randrange(3) == 0 else content, headers

    def use(self, given: tuple[int, bytes, list[tuple[str, str]]]) -> None:
        which, body, headers = given
        answer = self.served[which].infer(body, headers)
        if answer.status == 200:
            if not answer.json["outputs"]:
                raise FaultError("an answer without outputs")
            return
        if not 400 <= answer.status < 500:
            raise FaultError(f"status {answer.status}: {answer.body[:300]!r}")
        raise MlopsError(answer.error)


class CopiedRequest(InferenceRequest):
    """A copy of a request to a canary: its body, and what a live pod says that it answered."""

    def options(self) -> dict[str, Any]:
        from pipelines.serving.shadow_receiver import ShadowReceiver

        return {"receiver": ShadowReceiver()}

    def make(self, rng: random.Random) -> tuple[int, bytes, list[tuple[str, str]]]:
        which, body, headers = super().make(rng)
        live = rng.choice((b"200 0.001 91.1", b"422 1e-05 -"))
        content = Mutator(rng).content(live) if rng.randrange(2) else live
        return which, body, [*headers, ("live-answer", content.decode("latin-1"))]

    def use(self, given: tuple[int, bytes, list[tuple[str, str]]]) -> None:
        from pipelines.serving.shadow_protocol import SHADOW_PATH, TAKEN

        which, body, headers = given
        answer = self.served[which].infer(body, headers, SHADOW_PATH)
        if answer.status == TAKEN:
            return
        if answer.status != 400:
            raise FaultError(f"status {answer.status}: {answer.body[:300]!r}")
        raise MlopsError(answer.error)


class PredictionFile(Subject):
    """A Parquet file to predict by batch."""

    def __init__(self, scratch: Path) -> None:
        from pipelines.prediction.prediction_inputs import check_columns_of, in_parts, open_file, read_file
        from pipelines.prediction.prediction_rows import PredictionWriter
        from pipelines.serving.row_scoring import RowScorer
        from pipelines.serving.runtime import OnnxModel
        from tests.pipelines.serving.bundles import mixed_bundle

        super().__init__(scratch)

        class FirstOutput(RowScorer):
            """Leaves out every output but the first: the table holds one prediction."""

            def score(self, values: Any, rows: int) -> Any:
                found = super().score(values, rows)
                return replace(found, outputs=dict(list(found.outputs.items())[:1]))

        made = mixed_bundle()
        self.scorer = FirstOutput(made.manifest, made.files, OnnxModel)
        self.inputs = self.scorer.schema.inputs
        self.path = scratch / "rows.parquet"
        self.steps = (open_file, check_columns_of, read_file, in_parts, PredictionWriter)

    def make(self, rng: random.Random) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"id": pa.int64(), "a": pa.float64(), "b": pa.float32(), "small": pa.int32(), "large": pa.int64()}
        kinds |= {"flag": pa.bool_(), "town": pa.string(), "more": pa.list_(pa.int8())}
        if rng.randrange(3) == 0:
            other = (pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float16(), pa.date64(), pa.null())
            others = (*other, pa.decimal128(38, 2), pa.timestamp("ns", "UTC"), pa.dictionary(pa.int8(), pa.string()))
            kinds[rng.choice(list(kinds))] = rng.choice(others)
        good = {"id": 1, "a": 1.0, "b": 4.0, "small": 3, "large": 7, "flag": True, "town": "Ulm", "more": [1]}
        columns: dict[str, Any] = {name: [] for name in kinds}
        for _ in range(rng.choice((0, 1, 2, 5, 20))):
            row = dict(good)
            while rng.randrange(3) == 0:
                row[rng.choice(list(row))] = rng.choice((*NUMBERS, *TEXTS, None, True, float("nan")))
            for name, value in row.items():
                columns[name].append(value)
        arrays = {}
        for name, values in columns.items():
            try:
                arrays[name] = pa.array(values, kinds[name])
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                arrays[name] = pa.array([None] * len(values), kinds[name])
        if rng.randrange(12) == 0:
            arrays.pop(rng.choice(list(arrays)))
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays), sink, compression=rng.choice(("snappy", "zstd", "none")))
        content = sink.getvalue()
        return Mutator(rng).content(content) if rng.randrange(3) == 0 else content

    def use(self, given: bytes) -> None:
        import pyarrow as pa

        open_file, check_columns_of, read_file, in_parts, writer_of = self.steps
        self.path.write_bytes(given)
        schema, rows = open_file("rows.parquet", self.path)
        check_columns_of("rows.parquet", schema, self.inputs, {"id": "long"})
        table = pa.schema(
            [("row", pa.int64()), ("id", pa.int64()), ("prediction", pa.float64()), ("refused", pa.string())]
        )
        writer = writer_of("rows.parquet", self.scorer, table, {"id": "id"}, (), (), "batch", "bundle")
        columns = ["id", *(column.name for tensor in self.inputs for column in tensor.columns)]
        made = [
            writer.predict(part) for part in in_parts("rows.parquet", read_file("rows.parquet", self.path, columns))
        ]
        answered = [row["prediction"] is not None for part in made for row in part.to_pylist()]
        if len(answered) != rows or writer.counts.rows - writer.counts.refused != sum(answered):
            raise FaultError(f"{rows} rows, of which {sum(answered)} are answered: {writer.counts}")


class ModelAnswer(Subject):
    """What the process that loads a model answers, which a model can choose that has taken it over."""

    graph: ClassVar[dict[str, Any]] = {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    }
    texts = json.dumps(["yes", "no", "Köln 🚂"]).encode()
    rows: ClassVar[dict[str, Any]] = {
        "arrays": [{"shape": [3, 2], "size": 24}, {"shape": [3], "size": 3}, {"shape": [3], "size": len(texts)}]
    }

    def __init__(self, scratch: Path) -> None:
        from pipelines.declarations.bundle import TensorSpec
        from pipelines.training.confined_process import ConfinedProcess, Purpose

        super().__init__(scratch)

        class Spoken(ConfinedProcess):
            """What a process has said, without the process."""

            def __init__(self, said: bytes) -> None:
                self._answers = io.BytesIO(said)
                self._purpose = Purpose("the model", "process", "an answer", "", "")

            def send(self, value: object) -> None:
                del value

            @contextlib.contextmanager
            def time_limit(self, seconds: float) -> Iterator[None]:
                del seconds
                yield

            def ended(self) -> MlopsError:
                return MlopsError("the process ended")

        self.spoken = Spoken
        kinds: tuple[tuple[Any, tuple[int, ...]], ...] = (("FP32", (-1, 2)), ("BOOL", (-1,)), ("BYTES", (-1,)))
        self.outputs = [TensorSpec(name=kind, datatype=kind, shape=shape) for kind, shape in kinds]

    def make(self, rng: random.Random) -> tuple[bool, bytes]:
        mutator, graph = Mutator(rng), bool(rng.randrange(2))
        document = self.graph if graph else self.rows
        header = json.dumps(mutator.tree(document) if rng.randrange(3) else document).encode() + b"\n"
        contents = b"" if graph else rng.randbytes(24) + b"\0\1\1" + self.texts
        said = header + (mutator.content(contents) if rng.randrange(3) == 0 else contents)
        return graph, mutator.content(said) if rng.randrange(6) == 0 else said

    def use(self, given: tuple[bool, bytes]) -> None:
        from pipelines.training.confined_model import ConfinedModel, FailedRowsError, ModelProcess

        graph, said = given
        process = self.spoken(said)
        if graph:
            ModelProcess(process, b"model", "the model").check()
            return
        try:
            found = ConfinedModel(process, "the model", (), self.outputs).run({"features": [0, 0, 0]})
        except FailedRowsError as error:
            raise MlopsError(f"the model failed: {error}") from error
        if [(array.dtype.kind, array.shape) for array in found] != [("f", (3, 2)), ("b", (3,)), ("O", (3,))]:
            raise FaultError(f"other arrays than expected: {found}")
        json.dumps(found[2].tolist(), ensure_ascii=False).encode()


class AlarmEvent(Subject):
    """A `repository_dispatch` event that requests a response: what it makes of an issue, and its way back."""

    document: ClassVar[dict[str, Any]] = {
        "action": "alarm",
        "client_payload": {
            "model": "m1",
            "environment": "prod",
            "reason": "accuracy: it fell",
            "bundle": "sha256:" + "a" * 64,
            "response": "roll-back",
            "id": "0123456789abcdef",
            "checks": ["accuracy", "errors"],
            "monitor": "observe-m1",
            "report": "20260301T000000Z-0123456789ab",
        },
    }

    def make(self, rng: random.Random) -> bytes:
        mutator = Mutator(rng)
        content = json.dumps(mutator.tree(self.document) if rng.randrange(6) else self.document).encode()
        return mutator.content(content) if rng.randrange(4) == 0 else content

    def use(self, given: bytes) -> None:
        from pipelines.monitoring.alarm import read_alarm
        from pipelines.promotion.alarm_report import AlarmReport
        from pipelines.promotion.comments.alarm_issue import render_question

        alarm = read_alarm(given)
        again = json.dumps({"action": alarm.kind, "client_payload": alarm.payload()}).encode()
        if read_alarm(again) != alarm or len(alarm.payload()) > 10:
            raise FaultError(f"the alarm changes on its way: {alarm}")
        text = render_question(alarm, "accuracy", "team", "id", "", AlarmReport(missing="it is gone"))
        if "@" in text.replace("@\u200b", "") or "<script" in text:
            raise FaultError(f"the issue has markup of the alarm: {text[:300]}")


class WorkflowFile(Subject):
    """A workflow file, read and planned by the laptop's runner; its steps do not run."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        self.documents = [parse_yaml(file.read_bytes(), file)[0] for file in files]
        self.documents += [_small_workflow()] * len(files)

    def make(self, rng: random.Random) -> bytes:
        return Mutator(rng).yaml(rng.choice(self.documents))

    def use(self, given: bytes) -> None:
        from laptop.github.expressions.evaluator import EvaluationScope
        from laptop.github.expressions.syntax import ExpressionError
        from laptop.github.forge.webhook_event import WebhookEvent
        from laptop.github.runner.matrix import legs
        from laptop.github.runner.triggering import is_triggered
        from laptop.github.workflow.workflow_file import read_workflow

        workflow = read_workflow(given, ".github/workflows/fuzz.yml")
        event = WebhookEvent("push", {"ref": "refs/heads/main"}, "refs/heads/main", "0" * 40, "ada")
        is_triggered(workflow, event, lambda: ["models/a/model.yaml", "docs/é.md"])
        scope = EvaluationScope({"github": {"ref": "refs/heads/main"}, "needs": {}, "vars": {}, "inputs": {}}, {})
        for job in workflow.jobs.values():
            if job.strategy is not None:
                try:
                    legs(job.strategy, scope)
                except ExpressionError as error:
                    raise MlopsError(str(error)) from None


def _small_workflow() -> dict[str, Any]:
    """Return a workflow with many features of the language in few lines."""
    return {
        "name": "fuzz",
        "on": {
            "push": {"branches": ["main", "v[0-9]+.*", "!x/**"], "paths": ["models/**", "!**/*.md"]},
            "workflow_dispatch": {"inputs": {"model": {"type": "string", "required": False, "default": ""}}},
            "schedule": [{"cron": "17 */6 * * *"}],
        },
        "permissions": {"contents": "read"},
        "concurrency": {"group": "${{ github.ref }}", "cancel-in-progress": False},
        "env": {"A": "${{ format('{0} {1}', github.ref, 1) }}"},
        "jobs": {
            "one": {
                "runs-on": "ubuntu-24.04",
                "strategy": {
                    "fail-fast": False,
                    "matrix": {"v": [1, 2], "os": ["a"], "include": [{"v": 3}], "exclude": [{"v": 1}]},
                },
                "steps": [
                    {"name": "s", "if": "${{ github.ref == 'x' && !cancelled() }}", "run": "echo ${{ matrix.v }}"}
                ],
            },
            "two": {
                "needs": "one",
                "if": "always() && contains(fromJSON('[1]'), 1)",
                "runs-on": "ubuntu-24.04",
                "timeout-minutes": 5,
                "steps": [{"run": "true", "shell": "bash", "env": {"B": "b"}, "continue-on-error": True}],
            },
        },
    }


class PolicyDocument(Subject):
    """An IAM policy document, read and evaluated by the laptop's account."""

    def __init__(self, scratch: Path) -> None:
        from laptop.aws.access.policy import Caller, Grants, Need

        super().__init__(scratch)
        role = "arn:aws:iam::123456789012:role/r"
        caller = "arn:aws:sts::123456789012:assumed-role/r/s"
        self.caller = Caller(caller, frozenset({role, caller}), "123456789012")
        self.context = {
            "aws:username": ("me",),
            "s3:prefix": ("a/b",),
            "aws:tagkeys": ("x", "y"),
            "aws:currenttime": (f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",),
            "aws:sourceip": ("10.1.2.3",),
            "aws:securetransport": ("true",),
            "aws:multifactorauthage": ("5",),
        }
        self.grants, self.need = Grants, Need

    def make(self, rng: random.Random) -> str:
        mutator = Mutator(rng)
        text = json.dumps(mutator.tree(_policy(rng), most=2) if rng.randrange(10) else _policy(rng))
        return mutator.content(text.encode()).decode(errors="replace") if rng.randrange(5) == 0 else text

    def use(self, given: str) -> None:
        from laptop.aws.access.policy import parse, refusal

        document = parse(given, "fuzz")
        for action, resource in (("s3:GetObject", "arn:aws:s3:::b/a/k"), ("iam:PassRole", "*")):
            for identity, policy in (((document,), None), ((), document)):
                need = self.need(action, resource, policy=policy)
                refused = refusal(self.caller, self.grants(identity), need, self.context)
                if refused is not None and not refused:
                    raise FaultError("a refusal without a reason")


def _policy(rng: random.Random) -> dict[str, Any]:
    operators = {
        "StringEquals": ("s3:prefix", "a/b"),
        "StringLike": ("aws:username", ["m*", "${aws:username}"]),
        "ForAllValues:StringEquals": ("aws:TagKeys", ["x", "y"]),
        "ForAnyValue:StringLikeIfExists": ("aws:TagKeys", "x*"),
        "NumericLessThan": ("aws:MultiFactorAuthAge", "10"),
        "DateGreaterThan": ("aws:CurrentTime", "2020-01-01T00:00:00Z"),
        "IpAddress": ("aws:SourceIp", ["10.0.0.0/8", "2001:db8::/32"]),
        "Bool": ("aws:SecureTransport", "true"),
        "Null": ("aws:TokenIssueTime", "true"),
        "ArnLike": ("aws:PrincipalArn", "arn:aws:iam::*:role/*"),
    }
    name = rng.choice(list(operators))
    key, value = operators[name]
    statement: dict[str, Any] = {
        "Sid": "a",
        "Effect": rng.choice(("Allow", "Deny")),
        rng.choice(("Action", "NotAction")): rng.choice(("s3:*", ["s3:Get*", "iam:PassRole"], "*")),
        rng.choice(("Resource", "NotResource")): rng.choice(
            ("*", ["arn:aws:s3:::b/${aws:username}/*", "arn:aws:s3:::b/*"])
        ),
        "Condition": {name: {key: value}},
    }
    if rng.randrange(2):
        statement["Principal"] = rng.choice(("*", {"AWS": "arn:aws:iam::123456789012:root"}, {"AWS": ["123456789012"]}))
    return {"Version": rng.choice(("2012-10-17", "2008-10-17")), "Statement": rng.choice((statement, [statement]))}


SUBJECTS: dict[str, type[Subject]] = {
    "contract": ContractFile,
    "model": ModelFile,
    "release": ReleaseFile,
    "environment": EnvironmentFile,
    "landing-file": LandingFile,
    "request": InferenceRequest,
    "copied-request": CopiedRequest,
    "prediction-file": PredictionFile,
    "model-answer": ModelAnswer,
    "alarm": AlarmEvent,
    "workflow": WorkflowFile,
    "policy": PolicyDocument,
}

LAPTOP = ("workflow", "policy")
"""Kinds whose readers belong to the laptop."""


def known_kinds() -> tuple[str, ...]:
    """Return the kinds that can be fuzzed here."""
    has_laptop = (ROOT / "laptop").is_dir()
    return tuple(kind for kind in SUBJECTS if has_laptop or kind not in LAPTOP)


def find_subject(kind: str) -> type[Subject]:
    """Return the subject of a kind; `<module>:<class>` names one that is not listed."""
    if kind in SUBJECTS:
        return SUBJECTS[kind]
    module, _, name = kind.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    assert isinstance(found, type) and issubclass(found, Subject)
    return found


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder for a subject."""
    return tempfile.TemporaryDirectory(prefix="fuzz-")
