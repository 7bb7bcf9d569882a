"""Input of the benchmark of a model's monitor: a declaration, a bundle's facts, and an inference log."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np

from pipelines.declarations.baseline import Baseline, Categorical, Numeric
from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema, TensorSpec
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model
from pipelines.monitoring.model_monitor import LiveBundle
from pipelines.training.drift_baseline import describe_numbers

NAME = "bench"


def names(features: int) -> list[str]:
    """Return the names of the features."""
    return [f"f{number}" for number in range(features)]


def model(features: int) -> Model:
    """Return the declaration of a regression."""
    return Model.model_validate(
        {
            "name": NAME,
            "objective": "Benchmark.",
            "intended_use": "Benchmark.",
            "owner": "us",
            "task": "regression",
            "contract": "bench",
            "target": "target",
            "features": tuple(names(features)),
            "training": {"entrypoint": "train:train", "seed": 1, "resources": {"cpu": "1", "memory": "1Gi"}},
            "gates": {
                "thresholds": ({"metric": "rmse", "maximum": 1},),
                "champion": {"metric": "rmse", "maximum_regression": 0.1},
                "latency": {"p99_ms": 20},
                "soak": {"requests": 1, "seconds": 1},
            },
            "serving": {"resources": {"cpu": "1", "memory": "1Gi"}},
        }
    )


def live(features: int, digest: str, now: datetime) -> LiveBundle:
    """Return the facts of a bundle."""
    rng = np.random.default_rng(0)
    columns: dict[str, Numeric | Categorical] = {
        name: describe_numbers(rng.normal(size=20_000)) for name in names(features)
    }
    evaluation = {
        "model": NAME,
        "task": "regression",
        "holdout": {"share": 0.3, "seed": 1, "rows": 1, "training_rows": 1, "unlabelled_rows": 0, "keys": digest,
                    "leaked_rows": 0},
        "metrics": {"rmse": {"value": 0.5, "low": 0.4, "high": 0.6}},
        "slices": {},
        "groups": {},
        "sample": {"keys": [], "truth": [], "predicted": []},
    }  # fmt: skip
    return LiveBundle(
        digest,
        now - timedelta(days=9),
        RequestSchema(
            inputs=(
                InputTensor(name="features", datatype="FP32", shape=(-1, features),
                            columns=tuple(RequestColumn(name=name) for name in names(features))),
            ),
            outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1, 1)),),
        ),
        Baseline(model=NAME, features=columns, outputs={"prediction": describe_numbers(rng.normal(size=20_000))}),
        Evaluation.model_validate_json(json.dumps(evaluation)),
    )  # fmt: skip


def write_log(
    descriptor: EnvironmentDescriptor, requests: int, per_object: int, features: int, digest: str, at: datetime
) -> None:
    """Write a log whose requests repeat those of one object, with other ids."""
    import boto3

    rng, s3 = np.random.default_rng(1), boto3.client("s3")
    values = np.round(rng.normal(size=(per_object, features)), 5).tolist()
    predicted = np.round(rng.normal(size=per_object), 6).tolist()
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for number in range(-(-requests // per_object)):
        lines = [
            f'{{"time":"{time}","model":"{NAME}","bundle":"{digest}","id":"{number:016x}{index:016x}",'
            f'"trace":"{number:016x}{index:016x}","rows":1,"inputs":{{"features":[{row}]}},'
            f'"outputs":{{"prediction":[[{answer}]]}}}}\n'
            for index, (row, answer) in enumerate(zip(values, predicted, strict=True))
        ]
        key = f"inference/{NAME}/{at:%Y/%m/%d/%H}/pod-{number}.jsonl"
        s3.put_object(Bucket=descriptor.logs_bucket, Key=key, Body="".join(lines).encode())
