from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.declarations.bundle import InputTensor, RequestColumn
from pipelines.declarations.datatypes import next_float32, to_float32
from pipelines.serving.protocol import RequestInput
from pipelines.serving.request_error import RequestError
from pipelines.serving.tensors import TensorReader

LARGEST = float(np.finfo(np.float32).max)


def accepts(value: float, **keys: Any) -> bool:
    """Return whether the FP32 input accepts a value, in a row of its own and in the general path."""
    column = RequestColumn(name="a", **keys)
    schema = InputTensor(name="x", datatype="FP32", shape=(-1, 1), columns=(column,))
    reader = TensorReader(schema, np.zeros((1, 1), np.float32), most_rows=10)
    given_row = RequestInput(name="x", datatype="FP32", shape=[1, 1], data=msgspec.Raw(msgspec.json.encode([value])))
    fast = reader.read_row(given_row)
    try:
        reader.read(given_row)
    except RequestError:
        assert not fast
        return False
    assert fast
    return True


@pytest.mark.parametrize("value", [0.1, 0.10000000149011612])
@pytest.mark.parametrize("bound", [{"maximum": 0.1}, {"minimum": 0.1}, {"values": (0.1, 0.5)}])
def test_the_same_fp32_number_is_within_the_same_bound_however_it_is_written(
    value: float, bound: dict[str, Any]
) -> None:
    assert accepts(value, **bound)
    assert not accepts(0.2 if "maximum" in bound else 0.05, **bound)


def test_a_number_that_rounds_to_an_exclusive_bound_is_outside() -> None:
    assert not accepts(0.999999999, exclusive_maximum=1)
    assert accepts(0.9999999, exclusive_maximum=1)
    assert not accepts(1.000000001, exclusive_minimum=1)


def test_the_shortest_text_of_the_largest_number_is_that_number() -> None:
    assert accepts(3.4028235e38)
    assert not accepts(3.4028236e38)


float32s = st.floats(-(2.0**99), 2.0**99, width=32)


@given(bound=st.floats(-1e30, 1e30), near=float32s, steps=st.integers(-2, 2))
def test_a_bound_decides_as_float32_arithmetic_does(bound: float, near: float, steps: int) -> None:
    value = to_float32(bound)
    for _ in range(abs(steps)):
        value = next_float32(value, up=steps > 0)
    for number in (near, value, float(np.nextafter(value, np.inf))):
        rounded, limit = np.float32(number), np.float32(bound)
        assert accepts(number, maximum=bound) == bool(rounded <= limit)
        assert accepts(number, exclusive_maximum=bound) == bool(rounded < limit)
        assert accepts(number, minimum=bound) == bool(rounded >= limit)
        assert accepts(number, exclusive_minimum=bound) == bool(rounded > limit)


@given(number=st.floats(allow_nan=False))
def test_rounding_and_neighbours_are_those_of_numpy(number: float) -> None:
    with np.errstate(over="ignore"):
        assert to_float32(number) == float(np.float32(number))
        nearest = to_float32(number)
        if np.isfinite(nearest):
            assert next_float32(nearest, up=True) == float(np.nextafter(np.float32(nearest), np.float32(np.inf)))
            assert next_float32(nearest, up=False) == float(np.nextafter(np.float32(nearest), np.float32(-np.inf)))
