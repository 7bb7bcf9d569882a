"""A server's application around the bundles of `bundles.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.serving.application import Application
from pipelines.serving.inference_log import InferenceLog, Limits
from pipelines.serving.metrics import Metrics
from pipelines.serving.model import Model
from tests.pipelines.serving.asgi import JSON, Response, ask
from tests.pipelines.serving.bundles import NAME, ROW, MadeBundle, linear_bundle, mixed_bundle


@dataclass
class Served:
    """An application that serves a bundle, and what it wrote into its log."""

    bundle: MadeBundle
    application: Application
    model: Model
    metrics: Metrics
    log: InferenceLog
    written: dict[str, bytes] = field(default_factory=dict)

    def infer(self, body: Any, headers: Any = JSON, path: str = f"/v2/models/{NAME}/infer") -> Response:
        """Post a body: bytes, pieces of bytes, or a value that is sent as JSON."""
        content = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        return ask(self.application, "POST", path, content, headers)

    def get(self, path: str, method: str = "GET") -> Response:
        """Ask for a path."""
        return ask(self.application, method, path)

    def logged(self) -> list[dict[str, Any]]:
        """Stop the log, and read its lines."""
        self.log.close()
        return [json.loads(line) for content in self.written.values() for line in content.splitlines()]


def served(bundle: MadeBundle, **options: Any) -> Served:
    """Serve a bundle with a log that is written to memory when it is closed."""
    metrics = Metrics(NAME, bundle.digest)
    application = Application(NAME, bundle.digest, metrics, **options)
    model = Model(bundle.manifest, bundle.files, most_rows=100)
    written: dict[str, bytes] = {}
    limits = Limits(seconds=3600, first_pause=0.001, longest_pause=0.002, closing_seconds=5)
    log = InferenceLog(written.__setitem__, model=model, pod="pod", metrics=metrics, limits=limits)
    log.start()
    application.serve(model, log)
    return Served(bundle, application, model, metrics, log, written)


@pytest.fixture
def linear() -> Any:
    """A served model of ten numeric columns that adds up age and bmi."""
    made = served(linear_bundle())
    yield made
    made.log.close()


@pytest.fixture
def mixed() -> Any:
    """A served model with an input of each of the other datatypes."""
    made = served(mixed_bundle())
    yield made
    made.log.close()


@pytest.fixture
def serve() -> Any:
    """Serve a bundle of the test's own, or with options of its own."""
    made: list[Served] = []

    def start(bundle: MadeBundle | None = None, **options: Any) -> Served:
        made.append(served(bundle or linear_bundle(), **options))
        return made[-1]

    yield start
    for one in made:
        one.log.close()


def features(*rows: Any, **changes: Any) -> dict[str, Any]:
    """A request for the linear model: of `ROW`, or of these rows, flat; with some keys of the input changed."""
    given = rows or (ROW,)
    tensor = {
        "name": "features",
        "shape": [len(given), 10],
        "datatype": "FP32",
        "data": [value for row in given for value in row],
    }
    return {"inputs": [tensor | changes]}


def row(**changes: Any) -> list[Any]:
    """`ROW` with some columns changed."""
    names = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert set(changes) <= set(names)
    return [changes.get(name, value) for name, value in zip(names, ROW, strict=True)]


def mixture(**changes: Any) -> dict[str, Any]:
    """A request of one row for the mixed model; name of an input → its data, or None to leave it out."""
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
