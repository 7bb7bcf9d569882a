"""A fake server of a small bundle, for tests of clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.serving.request_metrics import RequestMetrics

MODEL = "price"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GOLDEN = GoldenPredictions(
    inputs=(Tensor(name="x", datatype="FP32", shape=(2, 2), data=(1.0, 2.0, 3, 4.5)),),
    outputs=(
        Tensor(name="y", datatype="FP32", shape=(2, 1), data=(150, 7.5)),
        Tensor(name="label", datatype="BYTES", shape=(2, 1), data=("low", "high")),
    ),
)


class Pod:
    """Answers as a server of the bundle does.

    Args:
        change: maps the number of a request and its answer to another answer: a JSON value, bytes, a status with
            bytes, or None to close the connection.

        seconds: times in which the server answers inference requests; the last one repeats.

    Attributes:
        asked: path and body of every request, except those for metrics.
    """

    def __init__(
        self, change: Callable[[int, Any], Any] = lambda _, answer: answer, seconds: Sequence[float] = (0.001,)
    ) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.change = change
        self._seconds = list(seconds)
        self._metrics = RequestMetrics(MODEL, DIGEST)

    def __call__(self, _method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if path == "/metrics":
            return 200, self._metrics.exposition()[1]
        self.asked.append((path, json.loads(body) if body else None))
        if path == f"/v2/models/{MODEL}":
            answer: Any = {"name": MODEL, "versions": [DIGEST]}
        else:
            self._metrics.answered(200, self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0])
            (x,) = self.asked[-1][1]["inputs"]
            rows = [x["data"][i : i + 2] for i in range(0, len(x["data"]), 2)]
            golden = {(1.0, 2.0): (150.0, "low"), (3.0, 4.5): (7.5, "high")}
            found = [golden[float(a), float(b)] for a, b in rows]
            answer = {
                "model_version": DIGEST,
                "outputs": [
                    {"name": "y", "shape": [len(rows), 1], "data": [y for y, _ in found]},
                    {"name": "label", "shape": [len(rows), 1], "data": [label for _, label in found]},
                ],
            }
        answer = self.change(len(self.asked), answer)
        if answer is None or isinstance(answer, tuple):
            return answer
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
