"""Golden predictions of a bundle: replay the requests, compare the answers."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from pipelines.declarations.bundle import GoldenPredictions, Tensor, TensorSpec
from pipelines.declarations.errors import MlopsError


class GoldenMismatchError(MlopsError):
    """An answer differs from the golden prediction, or comes from another bundle."""


_LARGEST = 1e150
"""Predictions beyond have squares that are no floats."""

Predict = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers an inference request. Both are JSON objects of the Open Inference Protocol v2."""


CHECK_REQUEST = "mlops-check"
"""Id of the golden requests that deployments, canary checks and `mlops predict` send. Monitors leave them out.

Another request with this id is logged under another one, or a caller could keep its requests from the monitors."""


def check_golden(predict: Predict, golden: GoldenPredictions, digest: str, *, single_row_requests: int) -> list[float]:
    """Send the golden request, then its rows one at a time, and compare every answer.

    Servers may answer one row by another code path than many rows, so both are checked.

    Args:
        predict: sends a request to a loaded model or an endpoint.
        golden: the requests and their expected answers.
        digest: the bundle that must answer.
        single_row_requests: number of one-row requests to send; the rows repeat as often as needed.

    Returns:
        The latency of each one-row request, in milliseconds.

    Raises:
        GoldenMismatchError: another bundle answers, or an answer differs.
    """
    times: list[float] = []
    for number, expected in enumerate((golden, *islice(cycle(single_rows(golden)), single_row_requests))):
        request = {"id": CHECK_REQUEST, **request_of(expected)}
        start = time.perf_counter()
        answer = predict(request)
        if number:
            times.append((time.perf_counter() - start) * 1000)
        if (version := answer.get("model_version")) != digest:
            raise GoldenMismatchError(f"bundle that answers: expected {digest}, found {version}")
        compare(expected, answer.get("outputs"))
    return times


def request_of(golden: GoldenPredictions) -> dict[str, Any]:
    """Return the golden request as a client would send it."""
    return {"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}


def row_count(golden: GoldenPredictions) -> int:
    """Return the number of rows in the golden request."""
    return golden.inputs[0].shape[0]


def single_rows(golden: GoldenPredictions) -> list[GoldenPredictions]:
    """Split golden predictions into one for each row."""
    return [
        golden.model_copy(
            update={
                "inputs": tuple(_row(tensor, index) for tensor in golden.inputs),
                "outputs": tuple(_row(tensor, index) for tensor in golden.outputs),
            }
        )
        for index in range(row_count(golden))
    ]


def counted_output(outputs: Sequence[TensorSpec | Tensor]) -> int | None:
    """Return the index of the output whose last value metrics count: the last one that holds numbers, or None."""
    found = [n for n, each in enumerate(outputs) if each.datatype not in ("BYTES", "BOOL") and 0 not in each.shape]
    return found[-1] if found else None


def prediction_deviation(golden: GoldenPredictions) -> float:
    """Return the standard deviation of the golden predictions, as metrics count them; 0 if none is usable."""
    predictions = counted_predictions(golden)
    if len(predictions) < 2 or max(map(abs, predictions)) > _LARGEST:
        return 0.0
    return statistics.stdev(predictions)


def counted_predictions(golden: GoldenPredictions) -> list[float]:
    """Return the golden predictions as metrics count them, one for each row; none if they are not numbers."""
    index = counted_output(golden.outputs)
    if index is None:
        return []
    tensor = golden.outputs[index]
    width = math.prod(tensor.shape[1:])
    return [float(value) for value in tensor.data[width - 1 :: width] if value is not None]


def golden_inputs(golden: GoldenPredictions, names: Sequence[str]) -> list[list[Any]]:
    """Return the inputs of every golden request, as the inference log holds them.

    Args:
        golden: the golden predictions.
        names: names of the model's inputs, in its order.

    Returns:
        For each request, one list for each input: the row, or the rows if there are several.
    """
    found = []
    for request in (golden, *single_rows(golden)):
        tensors = {tensor.name: tensor for tensor in request.inputs}
        found.append([_rows(tensors[name]) for name in names if name in tensors])
    return found


def _rows(tensor: Tensor) -> list[Any]:
    width, data = math.prod(tensor.shape[1:]), list(tensor.data)
    return data if tensor.shape[0] == 1 else [data[at : at + width] for at in range(0, len(data), width)]


def _row(tensor: Tensor, index: int) -> Tensor:
    width = math.prod(tensor.shape[1:])
    data = tensor.data[index * width : (index + 1) * width]
    return tensor.model_copy(update={"shape": (1, *tensor.shape[1:]), "data": data})


def compare(golden: GoldenPredictions, outputs: Any) -> None:
    """Compare the `outputs` of an answer with the golden ones.

    Args:
        golden: the expected outputs.
        outputs: the outputs as received; they may have any type.

    Raises:
        GoldenMismatchError: they differ. The message names the first value that does.
    """
    listed = outputs if isinstance(outputs, list) else []
    found = {str(output.get("name")): output for output in listed if isinstance(output, dict)}
    for expected in golden.outputs:
        _compare(expected, found.get(expected.name), golden)


def _compare(expected: Tensor, found: dict[str, Any] | None, golden: GoldenPredictions) -> None:
    where = f"golden.json: output {expected.name!r}"
    if found is None:
        raise GoldenMismatchError(f"{where}: the model does not return it")
    data = found.get("data")
    if list(expected.shape) != found.get("shape") or not isinstance(data, list) or len(expected.data) != len(data):
        raise GoldenMismatchError(f"{where}: expected the shape {list(expected.shape)}, found {found.get('shape')}")
    for index, (want, got) in enumerate(zip(expected.data, data, strict=True)):
        if isinstance(want, int | float) and isinstance(got, int | float):
            margin = golden.absolute_tolerance + golden.relative_tolerance * abs(want)
            same = abs(got - want) <= margin
        else:
            same = want == got
        if not same:
            raise GoldenMismatchError(
                f"{where}, value {index}: expected {want!r}, found {got!r}",
                fix="serve the bundle with the onnxruntime version that it was packaged with",
            )
