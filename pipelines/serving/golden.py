"""The golden predictions of a bundle: asked for whole or row by row, and compared with what came back."""

from __future__ import annotations

import math
from typing import Any

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.declarations.errors import MlopsError


def request_of(golden: GoldenPredictions) -> dict[str, Any]:
    """The golden request, as a client would send it."""
    return {"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}


def single_rows(golden: GoldenPredictions) -> list[GoldenPredictions]:
    """Each row as golden predictions of its own: a server may take another path for one row than for many."""
    count = golden.inputs[0].shape[0]
    return [
        golden.model_copy(
            update={
                "inputs": tuple(_row(tensor, index) for tensor in golden.inputs),
                "outputs": tuple(_row(tensor, index) for tensor in golden.outputs),
            }
        )
        for index in range(count)
    ]


def _row(tensor: Tensor, index: int) -> Tensor:
    width = math.prod(tensor.shape[1:])
    data = tensor.data[index * width : (index + 1) * width]
    return tensor.model_copy(update={"shape": (1, *tensor.shape[1:]), "data": data})


def compare(golden: GoldenPredictions, outputs: Any) -> None:
    """Compare the `outputs` of an answer with the golden ones.

    Args:
        golden: what must come back.
        outputs: what did; nothing of it is taken for granted.

    Raises:
        MlopsError: they differ; with the first value that does.
    """
    listed = outputs if isinstance(outputs, list) else []
    found = {str(output.get("name")): output for output in listed if isinstance(output, dict)}
    for expected in golden.outputs:
        _compare(expected, found.get(expected.name), golden)


def _compare(expected: Tensor, found: dict[str, Any] | None, golden: GoldenPredictions) -> None:
    where = f"golden.json: output {expected.name!r}"
    if found is None:
        raise MlopsError(f"{where}: the model does not give it")
    data = found.get("data")
    if list(expected.shape) != found.get("shape") or not isinstance(data, list) or len(expected.data) != len(data):
        raise MlopsError(f"{where}: expected the shape {list(expected.shape)}, found {found.get('shape')}")
    for index, (want, got) in enumerate(zip(expected.data, data, strict=True)):
        if isinstance(want, int | float) and isinstance(got, int | float):
            margin = golden.absolute_tolerance + golden.relative_tolerance * abs(want)
            same = abs(got - want) <= margin
        else:
            same = want == got
        if not same:
            raise MlopsError(
                f"{where}, value {index}: expected {want!r}, found {got!r}",
                fix="the runtime computes something else than the one the bundle was packaged with: pin the same one",
            )
