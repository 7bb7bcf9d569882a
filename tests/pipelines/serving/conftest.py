"""Fixtures: applications that serve the bundles of `bundles.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.application import Application
from pipelines.serving.inference_log import InferenceLog, Limits
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.asgi import JSON, Response, ask
from tests.pipelines.serving.bundles import NAME, ROW, MadeBundle, linear_bundle, mixed_bundle


@dataclass
class Served:
    """An application that serves a bundle, and the objects of its inference log."""

    bundle: MadeBundle
    application: Application
    predictor: Predictor
    metrics: RequestMetrics
    log: InferenceLog
    written: dict[str, bytes] = field(default_factory=dict)

    def infer(self, body: Any, headers: Any = JSON, path: str = f"/v2/models/{NAME}/infer") -> Response:
        """Send an inference request with a body of bytes, pieces of bytes, or a JSON value."""
        content = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        return ask(self.application, "POST", path, content, headers)

    def get(self, path: str, method: str = "GET") -> Response:
        """Send a request without a body."""
        return ask(self.application, method, path)

    def logged(self) -> list[dict[str, Any]]:
        """Close the inference log and return its records."""
        self.log.close()
        logs = [content for key, content in self.written.items() if key.endswith(".jsonl")]
        return [json.loads(line) for content in logs for line in content.splitlines()]


def served(bundle: MadeBundle, *, policy: LogPolicy | None = None, **options: Any) -> Served:
    """Serve a bundle with an inference log that writes to memory when closed."""
    metrics = RequestMetrics(NAME, bundle.digest)
    application = Application(NAME, bundle.digest, metrics, **options)
    predictor = Predictor(bundle.manifest, bundle.files, most_rows=100)
    predictor.check_golden(GoldenPredictions.model_validate_json(bundle.files["golden.json"]))
    written: dict[str, bytes] = {}
    limits = Limits(seconds=3600, first_pause=0.001, longest_pause=0.002, closing_seconds=5)
    log = InferenceLog(
        written.__setitem__, predictor=predictor, pod="pod", metrics=metrics, limits=limits, policy=policy
    )
    log.start()
    application.serve(predictor, log)
    return Served(bundle, application, predictor, metrics, log, written)


@pytest.fixture
def linear() -> Any:
    """Return a served model of ten numeric columns that adds age and bmi."""
    made = served(linear_bundle())
    yield made
    made.log.close()


@pytest.fixture
def mixed() -> Any:
    """Return a served model with an input of each of the other datatypes."""
    made = served(mixed_bundle())
    yield made
    made.log.close()


@pytest.fixture
def serve() -> Any:
    """A function that serves any bundle with any options."""
    made: list[Served] = []

    def start(bundle: MadeBundle | None = None, **options: Any) -> Served:
        made.append(served(bundle or linear_bundle(), **options))
        return made[-1]

    yield start
    for one in made:
        one.log.close()


def features(*rows: Any, **changes: Any) -> dict[str, Any]:
    """Make a request to the linear model: `ROW` or the given rows, with some keys of the input changed."""
    given = rows or (ROW,)
    tensor = {
        "name": "features",
        "shape": [len(given), 10],
        "datatype": "FP32",
        "data": [value for row in given for value in row],
    }
    return {"inputs": [tensor | changes]}


def row(**changes: Any) -> list[Any]:
    """Return `ROW` with some columns changed."""
    names = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert set(changes) <= set(names)
    return [changes.get(name, value) for name, value in zip(names, ROW, strict=True)]


def mixture(**changes: Any) -> dict[str, Any]:
    """Make a request of one row to the mixed model; name of an input → its data, or None to omit it."""
    kinds = {
        "wide": ("FP64", 2),
        "small": ("INT32", 1),
        "large": ("INT64", 1),
        "flag": ("BOOL", 1),
        "town": ("BYTES", 1),
    }
    data: dict[str, Any] = {"wide": [1, 4], "small": [3], "large": [7], "flag": [True], "town": ["Ulm"]} | changes
    return {
        "inputs": [
            {"name": name, "datatype": kinds[name][0], "shape": [1, kinds[name][1]], "data": values}
            for name, values in data.items()
            if values is not None
        ]
    }


Serve = Callable[..., Served]
