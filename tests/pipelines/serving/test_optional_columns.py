"""A request may leave out the last columns if the model lists them as optional: they are missing then."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from pipelines.declarations.bundle import InputTensor, RequestColumn
from pipelines.declarations.datatypes import Datatype
from pipelines.serving.predictor import InferenceResult, Predictor
from pipelines.serving.protocol import RequestInput
from pipelines.serving.request_error import RequestError
from pipelines.serving.tensors import TensorReader, read_tensors
from tests.pipelines.serving.bundles import COLUMNS, ROW, linear_bundle

LAST = tuple(each.model_copy(update={"nullable": True, "optional": True}) for each in COLUMNS[8:])
OPTIONAL = linear_bundle(columns=(*COLUMNS[:8], *LAST))


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(OPTIONAL.manifest, OPTIONAL.files)


def ask(predictor: Predictor, data: Any, shape: list[int]) -> InferenceResult:
    body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": shape, "data": data}]}
    return predictor.answer(json.dumps(body).encode(), b"1")


def predictions(result: InferenceResult) -> list[float]:
    return list(json.loads(result.body)["outputs"][0]["data"])


@pytest.mark.parametrize("width", [8, 9, 10])
def test_a_row_without_the_last_columns_is_answered_as_if_they_were_null(predictor: Predictor, width: int) -> None:
    whole = ask(predictor, [*ROW[:width], *[None] * (10 - width)], [1, 10])
    short = ask(predictor, ROW[:width], [1, width])
    assert predictions(short) == predictions(whole) == pytest.approx([91.1])
    logged = [json.loads(bytes(each)) for each in short.values]
    assert logged == [json.loads(bytes(each)) for each in whole.values]
    assert len(logged[0]) == 10, "the inference log has every column"


@pytest.mark.parametrize("nested", [True, False])
def test_rows_without_the_last_columns_keep_their_order(predictor: Predictor, nested: bool) -> None:
    rows = [[age, *ROW[1:8]] for age in (20.0, 30.0, 40.0)]
    data = rows if nested else [value for row in rows for value in row]
    assert predictions(ask(predictor, data, [3, 8])) == pytest.approx([52.1, 62.1, 72.1])


@pytest.mark.parametrize(
    ("data", "shape", "says"),
    [
        (ROW[:7], [1, 7], "expected shape [rows, 8 to 10] with at least 1 row, found [1,7]"),
        ([*ROW, 1.0], [1, 11], "expected shape [rows, 8 to 10] with at least 1 row, found [1,11]"),
        (ROW[:9], [1, 8], "expected 8 values for the shape [1, 8], found 9"),
        ([ROW[:8], ROW[:9]], [2, 8], "data[1]: expected 2 lists of 8 values for its shape, found a list of 9"),
        (
            [17.0, *ROW[1:8]],
            [1, 8],
            "column 'age' (index 0): expected a number at least 18",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(predictor: Predictor, data: Any, shape: list[int], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(predictor, data, shape)
    assert caught.value.status == 400
    assert says in caught.value.message


def test_columns_that_may_be_null_are_still_needed_unless_they_are_optional() -> None:
    nullable = tuple(each.model_copy(update={"optional": False}) for each in LAST)
    made = linear_bundle(columns=(*COLUMNS[:8], *nullable))
    with pytest.raises(RequestError, match=r"expected shape \[rows, 10\]"):
        ask(Predictor(made.manifest, made.files), ROW[:8], [1, 8])


def readers(*, optional: bool) -> dict[str, TensorReader]:
    def reader(name: str, datatype: Datatype, row: Any, column: RequestColumn) -> TensorReader:
        return TensorReader(
            InputTensor(name=name, datatype=datatype, shape=(-1, 1), columns=(column,)), row, most_rows=10
        )

    town = RequestColumn(name="town", nullable=True, optional=optional)
    return {
        "features": reader("features", "FP32", np.zeros((1, 1), np.float32), RequestColumn(name="age")),
        "town": reader("town", "BYTES", np.array([["x"]], object), town),
    }


AGES = RequestInput("features", [2, 1], "FP32", msgspec.Raw(b"[1, 2]"))


def test_an_optional_text_may_be_left_out_as_a_whole() -> None:
    ages, towns = read_tensors([AGES], readers(optional=True))
    assert towns.array.tolist() == [[""], [""]]
    assert json.loads(towns.json) == [[None], [None]]
    assert (ages.rows, towns.rows) == (2, 2)
    (_, one) = read_tensors([RequestInput("features", [1, 1], "FP32", msgspec.Raw(b"[1]"))], readers(optional=True))
    assert one.array.tolist() == [[""]]


def test_only_optional_inputs_may_be_left_out() -> None:
    with pytest.raises(RequestError, match="missing input 'town'; the model takes"):
        read_tensors([AGES], readers(optional=False))
    town = RequestInput("town", [1, 1], "BYTES", msgspec.Raw(b'["Ulm"]'))
    with pytest.raises(RequestError, match="missing input 'features'; the model takes"):
        read_tensors([town], readers(optional=True))
