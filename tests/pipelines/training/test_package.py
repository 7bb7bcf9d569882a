from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.training import TrainedModel
from pipelines.training.graph import Runtime, check_graph
from pipelines.training.package import answer, golden_predictions, request_schema
from pipelines.training.rows import features_of
from tests.pipelines.training.models import linear, make_model
from tests.pipelines.training.project import DATASET, MODEL, make_project, make_rows

WEIGHTS = [0.5, -1.0]


@pytest.fixture
def declared(tmp_path: Path) -> tuple[Model, Contract]:
    """A regression of income on age and membership, which needs no text."""
    metric = {
        "thresholds": [{"metric": "rmse", "maximum": 1e6}],
        "champion": {"metric": "rmse", "maximum_regression": 1},
    }
    gates = {**metric, "latency": {"p99_ms": 20.0}, "soak": {"requests": 1, "seconds": 0}}
    project = make_project(tmp_path, task="regression", target="income", features=["age", "loan_id"], gates=gates)
    return project.model(MODEL), project.contract(DATASET)


def features() -> pd.DataFrame:
    return pd.DataFrame({"age": [20.0, 30.0, 40.0], "loan_id": [1.0, 2.0, 3.0]})


def predict(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray(rows.to_numpy() @ WEIGHTS)


def run(trained: TrainedModel, rows: pd.DataFrame | None = None) -> Any:
    return answer("regression", trained, Runtime(check_graph(trained.onnx)), features() if rows is None else rows, ())


def test_onnx_that_predicts_as_the_trained_model_does_is_accepted() -> None:
    assert run(TrainedModel(predict, linear(WEIGHTS))).predicted.tolist() == [9.0, 13.0, 17.0]


def test_onnx_that_predicts_something_else_is_refused_with_how_many_rows_and_how_far() -> None:
    with pytest.raises(MlopsError, match=r"3 of 3 holdout rows differ, by up to 0\.0399"):
        run(TrainedModel(predict, linear([0.501, -1.0])))


def test_a_difference_in_one_row_alone_is_refused() -> None:
    def almost(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return predict(rows) + (rows["age"].to_numpy() == 40) * 0.01

    with pytest.raises(MlopsError, match="1 of 3 holdout rows differ"):
        run(TrainedModel(almost, linear(WEIGHTS)))


def test_predictions_that_are_not_finite_are_refused() -> None:
    rows = features()
    rows.loc[1, "age"] = np.nan
    with pytest.raises(MlopsError, match="predict gives 1 values that are not finite"):
        run(TrainedModel(predict, linear(WEIGHTS)), rows)


def test_predictions_of_another_shape_are_refused() -> None:
    with pytest.raises(MlopsError, match=r"predict gives the shape \[2\]; expected \[3\]"):
        run(TrainedModel(lambda rows: predict(rows)[1:], linear(WEIGHTS)))


def test_a_model_whose_answer_depends_on_the_rows_beside_it_is_refused() -> None:
    floats = [("features", TensorProto.FLOAT, ["rows", 2])]
    nodes = [
        helper.make_node("ReduceMean", ["features", "axes"], ["mean"]),
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "w"], ["prediction"]),
    ]
    weights = {"w": np.array(WEIGHTS, np.float32).reshape(2, 1), "axes": np.array([0])}
    model = make_model(nodes, floats, [("prediction", TensorProto.FLOAT, ["rows", 1])], weights)

    def centred(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return predict(rows - rows.mean())

    with pytest.raises(MlopsError, match="depends on the rows beside it"):
        run(TrainedModel(centred, model))


def test_the_request_schema_has_the_features_in_order_with_the_bounds_of_the_contract(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    ports = [("features", TensorProto.FLOAT, ["rows", 3]), ("region", TensorProto.STRING, ["rows", 1])]
    outputs = [("label", TensorProto.STRING, ["rows"]), ("probabilities", TensorProto.FLOAT, ["rows", 2])]
    weights = {"w": np.ones((3, 2), np.float32), "shape": np.array([-1])}
    nodes = [
        helper.make_node("MatMul", ["features", "w"], ["probabilities"]),
        helper.make_node("Reshape", ["region", "shape"], ["label"]),
    ]
    schema = request_schema(model, contract, check_graph(make_model(nodes, ports, outputs, weights)))
    numbers, region = schema.inputs
    assert (numbers.name, numbers.datatype, numbers.shape) == ("features", "FP32", (-1, 3))
    assert [column.name for column in numbers.columns] == ["income", "age", "member"]
    income, _, member = numbers.columns
    assert (income.minimum, income.exclusive_maximum, income.nullable, member.nullable) == (0, 1000, False, True)
    assert (region.name, region.datatype, region.shape) == ("region", "BYTES", (-1, 1))
    assert region.columns[0].values == ("north", "south")
    assert [(o.name, o.datatype, o.shape) for o in schema.outputs] == [
        ("label", "BYTES", (-1,)),
        ("probabilities", "FP32", (-1, 2)),
    ]


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    text = model.SerializeToString().replace(old.encode(), new.encode())
    return onnx.load_model_from_string(text)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (linear([1.0]), r"takes features FP32 \[-1, 1\]; expected features FP32 \[-1, 2\]"),
        (renamed(linear(WEIGHTS), "features", "measures"), r"takes measures FP32 \[-1, 2\]; expected features"),
        (renamed(linear(WEIGHTS), "prediction", "regression"), r"gives regression FP32 \[-1, 1\]; expected prediction"),
    ],
)
def test_a_model_with_other_inputs_or_outputs_is_refused(
    declared: tuple[Model, Contract], model: onnx.ModelProto, expected: str
) -> None:
    with pytest.raises(MlopsError, match=expected):
        request_schema(*declared, check_graph(model))


def test_golden_predictions_are_what_the_model_answers_to_real_rows(declared: tuple[Model, Contract]) -> None:
    graph = check_graph(linear(WEIGHTS))
    rows = features_of(make_rows(), *declared)
    answers = answer("regression", TrainedModel(predict, linear(WEIGHTS)), Runtime(graph), rows, ())
    golden = golden_predictions(request_schema(*declared, graph), answers)
    (asked,), (said,) = golden.inputs, golden.outputs
    assert (asked.name, asked.shape, said.shape) == ("features", (5, 2), (5, 1))
    assert list(asked.data) == rows.to_numpy()[:5].ravel().tolist()
    again = Runtime(graph).run({"features": np.array(asked.data, np.float32).reshape(asked.shape)})
    assert again["prediction"].ravel().tolist() == list(said.data)


def test_features_have_the_precision_that_a_request_carries(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    rows = pa.table(
        {
            "income": pa.array([0.1, 2.0]),
            "age": pa.array([20, None], pa.int32()),
            "member": pa.array([True, None]),
            "region": pa.array(["north", None]),
        }
    )
    found = features_of(rows, model, contract)
    assert found["income"].tolist() == [float(np.float32(0.1)), 2.0]
    assert found["age"].isna().tolist() == found["member"].isna().tolist() == [False, True]
    assert (found["member"][0], found["region"].tolist()) == (1.0, ["north", ""])
