"""A served classifier: its bundle's facts, and the inference log and labels of its requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema, TensorSpec
from pipelines.declarations.datatypes import Datatype
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.evaluation import Holdout
from pipelines.declarations.model import Model
from pipelines.monitoring.model_monitor import LiveBundle
from pipelines.training.drift_baseline import describe_baseline
from pipelines.training.evaluate import Predictions, evaluate
from tests.pipelines.data.contracts import column, contract

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DIGEST, OTHER = ("sha256:" + digit * 64 for digit in "ab")
CONTRACT = contract(
    column("age", "number"),
    column("income", "number"),
    column("plan", "string", customProperties=[]),
    column("constant", "number"),
    column("region", "string"),
    column("left", "integer"),
)
LABELS = contract(
    column("id", "string", primaryKey=True),
    column("label", "integer"),
    column("known", "timestamp"),
    column("region", "string"),
    name="departures",
)
PLANS = ("basic", "plus", "pro")


def declared(**monitoring: Any) -> Model:
    """Return the declaration of the model, with settings of its monitor."""
    return Model.model_validate_json(
        json.dumps(
            {
                "name": "departures",
                "objective": "Predict who leaves.",
                "intended_use": "Tests.",
                "owner": "us",
                "task": "classification",
                "contract": "visits",
                "target": "left",
                "features": ["age", "income", "plan", "constant"],
                "protected": ["region", "plan"],
                "training": {"entrypoint": "train:train", "seed": 1, "resources": {"cpu": "1", "memory": "1Gi"}},
                "gates": {
                    "thresholds": [{"metric": "accuracy", "minimum": 0.6}],
                    "champion": {"metric": "accuracy", "maximum_regression": 0.02},
                    "fairness": [
                        {"attribute": "region", "metric": "accuracy", "maximum_difference": 0.2},
                        {"attribute": "plan", "metric": "selection_rate", "maximum_difference": 0.4},
                    ],
                    "latency": {"p99_ms": 20},
                    "soak": {"requests": 1, "seconds": 1},
                },
                "serving": {"resources": {"cpu": "1", "memory": "1Gi"}},
                "monitoring": monitoring,
            }
        )
    )


@dataclass
class People:
    """Rows with what the model predicts for them, and the truth."""

    columns: dict[str, NDArray[Any]]
    probability: NDArray[np.float64]
    truth: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)


def draw(rng: np.random.Generator, number: int, *, shift: float = 0.0, concept: float = 0.0) -> People:
    """Draw people.

    Args:
        rng: source of randomness.
        number: how many.
        shift: mean of `age`, in standard deviations.
        concept: share of people whose truth is the opposite of what the model expects.
    """
    age, income = rng.normal(shift, 1, number), rng.normal(0, 1, number)
    score = 1 / (1 + np.exp(-(2.2 * age + 1.2 * income)))
    truth = (rng.random(number) < score).astype(np.int64)
    turned = rng.random(number) < concept
    return People(
        {
            "age": age.astype(np.float32),
            "income": income.astype(np.float32),
            "plan": rng.choice(PLANS, number),
            "constant": np.full(number, 7.0),
            "region": rng.choice(["north", "south"], number),
        },
        score.astype(np.float32).astype(np.float64),
        np.where(turned, 1 - truth, truth),
    )


def live_bundle(model: Model, since: datetime | None = None, seed: int = 0, rows: int = 6000) -> LiveBundle:
    """Return the facts of a bundle that was trained and evaluated on drawn people."""
    rng = np.random.default_rng(seed)
    training, holdout = draw(rng, rows), draw(rng, rows // 2)
    probabilities = np.stack([1 - holdout.probability, holdout.probability], axis=1)
    predictions = Predictions(holdout.truth.astype(np.float64), probabilities, (0, 1))
    described = Holdout(
        share=0.3, seed=1, rows=len(holdout), training_rows=rows, unlabelled_rows=0, keys=DIGEST, leaked_rows=0
    )
    tensors: dict[str, tuple[Datatype, tuple[str, ...]]] = {
        "features": ("FP32", ("age", "income", "constant")),
        "texts": ("BYTES", ("plan",)),
    }
    return LiveBundle(
        DIGEST,
        since or NOW - timedelta(days=60),
        RequestSchema(
            inputs=tuple(
                InputTensor(name=name, datatype=datatype, shape=(-1, len(names)),
                            columns=tuple(RequestColumn(name=each) for each in names))
                for name, (datatype, names) in tensors.items()
            ),
            outputs=(
                TensorSpec(name="label", datatype="INT64", shape=(-1,)),
                TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
            ),
        ),
        describe_baseline(model, CONTRACT, lambda name: [np.asarray(training.columns[name])], predictions),
        evaluate(
            model, described, pd.DataFrame(holdout.columns), np.arange(len(holdout)).astype(np.uint64), predictions
        ),
    )  # fmt: skip


@dataclass
class Traffic:
    """Writes the inference log of requests, and remembers their truth for labels."""

    environment: EnvironmentDescriptor
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    number: int = 0
    objects: int = 0
    known: list[tuple[str, int, str]] = field(default_factory=list)

    def send(
        self,
        rows: int,
        at: datetime = NOW - timedelta(hours=3),
        *,
        bundle: str = DIGEST,
        missing: float = 0.0,
        plan: str = "",
        ids: Sequence[str] = (),
        rows_each: int = 1,
        edit: Callable[[dict[str, Any]], None] = lambda record: None,
        **change: float,
    ) -> list[str]:
        """Log requests within the minute after a time; return their ids. `edit` changes each record."""
        people = draw(self.rng, rows, **change)
        lines, made = [], []
        for start in range(0, rows, rows_each):
            chosen = range(start, min(start + rows_each, rows))
            self.number += 1
            id_ = ids[start] if start < len(ids) else f"request-{self.number:07}"
            made.append(id_)
            time = at + timedelta(milliseconds=60_000 * start / rows)
            record = {
                "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "model": "departures",
                "bundle": bundle,
                "id": id_,
                "trace": "0" * 32,
                "rows": len(chosen),
                "inputs": {
                    "features": [
                        [None if self.rng.random() < missing else float(people.columns["age"][index]),
                         float(people.columns["income"][index]), 7.0]
                        for index in chosen
                    ],
                    "texts": [[plan or str(people.columns["plan"][index])] for index in chosen],
                },
                "outputs": {
                    "label": [[int(people.probability[index] > 0.5)] for index in chosen],
                    "probabilities": [[1 - people.probability[index], people.probability[index]] for index in chosen],
                },
            }  # fmt: skip
            edit(record)
            lines.append(json.dumps(record))
            self.known += [(id_, int(people.truth[i]), str(people.columns["region"][i])) for i in chosen]
        self.put(at, "\n".join(lines) + "\n")
        return made

    def fail(
        self, requests: int, at: datetime = NOW - timedelta(hours=3), bundle: str = DIGEST, status: int = 500
    ) -> None:
        """Log requests that ended in a server error."""
        time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(
            {"time": time, "model": "departures", "bundle": bundle, "trace": "1", "rows": 0, "status": status}
        )
        self.put(at, (line + "\n") * requests)

    def put(self, at: datetime, text: str) -> None:
        """Write an object of the log."""
        self.objects += 1
        key = f"inference/departures/{at:%Y/%m/%d/%H}/pod-{self.objects}.jsonl"
        boto3.client("s3").put_object(Bucket=self.environment.logs_bucket, Key=key, Body=text.encode())

    def latencies(self, buckets: Sequence[int], at: datetime = NOW - timedelta(hours=3), lost: int = 0) -> None:
        """Write a count with the latencies of requests, and the number of lost records."""
        self.objects += 1
        time = int(at.timestamp() * 1000)
        name = f"{time}-{time}-{sum(buckets)}-0-{DIGEST[7:]}-p-{self.objects}.json"
        key = f"inference/departures/counts/{at:%Y/%m/%d}/{name}"
        body = json.dumps({"latencies": list(buckets), "lost": lost}).encode()
        boto3.client("s3").put_object(Bucket=self.environment.logs_bucket, Key=key, Body=body)


def label_table(labels: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return labels as `read_labels` does, from (id, label) or (id, label, time)."""
    times = [each[2] if len(each) > 2 else None for each in labels]
    return pa.table(
        {
            "id": pa.array([each[0] for each in labels], pa.string()),
            "label": pa.array([each[1] for each in labels]),
            "row": pa.array([0] * len(labels), pa.int64()),
            "time": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )


def with_label_source(**more: Any) -> Model:
    """Return the declaration with a source of labels."""
    return declared(labels={"dataset": "departures", "label": "label", "time": "known", "delay_days": 5, **more})
