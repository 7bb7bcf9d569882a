from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from onnx import TensorProto, helper

from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_error import RequestError
from pipelines.serving.runtime import OnnxModel
from pipelines.training import TrainedModel
from pipelines.training.onnx_graph import check_graph
from pipelines.training.package import golden_predictions, invented_values, request_schema
from pipelines.training.rows import features_of
from tests.pipelines.serving.bundles import linear_bundle
from tests.pipelines.training.models import answers_of, linear, load_graph, make_model
from tests.pipelines.training.project import DATASET, DECLARATION, MODEL, contract_document, make_project, make_rows

WEIGHTS = [0.5, -1.0]

GATES = {
    "thresholds": [{"metric": "rmse", "maximum": 1e6}],
    "champion": {"metric": "rmse", "maximum_regression": 1},
    "latency": {"p99_ms": 20.0},
    "soak": {"requests": 1, "seconds": 0},
}


@pytest.fixture
def declared(tmp_path: Path) -> tuple[Model, Contract]:
    """Return a regression of income with two numeric features."""
    project = make_project(tmp_path, task="regression", target="income", features=["age", "loan_id"], gates=GATES)
    return project.model(MODEL), project.contract(DATASET)


def features() -> pd.DataFrame:
    return pd.DataFrame({"age": [20.0, 30.0, 40.0], "loan_id": [1.0, 2.0, 3.0]})


def predict(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray(rows.to_numpy() @ WEIGHTS)


def run(trained: TrainedModel, rows: pd.DataFrame | None = None) -> Any:
    return answers_of("regression", trained, check_graph(trained.onnx), features() if rows is None else rows)


def test_onnx_that_agrees_with_the_trained_model_is_accepted() -> None:
    assert run(TrainedModel(predict, linear(WEIGHTS))).predicted.tolist() == [9.0, 13.0, 17.0]


def test_onnx_that_disagrees_is_refused_with_the_number_of_rows_and_the_distance() -> None:
    with pytest.raises(MlopsError, match=r"3 of 3 holdout rows differ, by up to 0\.0399"):
        run(TrainedModel(predict, linear([0.501, -1.0])))


def test_a_difference_in_a_single_row_is_refused() -> None:
    def almost(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        answers: np.ndarray[Any, Any] = predict(rows) + (rows["age"].to_numpy() == 40) * 0.01
        return answers

    with pytest.raises(MlopsError, match="1 of 3 holdout rows differ"):
        run(TrainedModel(almost, linear(WEIGHTS)))


def test_predictions_that_are_not_finite_are_refused() -> None:
    rows = features()
    rows.loc[1, "age"] = np.nan
    with pytest.raises(
        MlopsError, match=r"predictions of predict\(\) on the holdout: expected finite values, found 1 that are not"
    ):
        run(TrainedModel(predict, linear(WEIGHTS)), rows)


def test_predictions_of_another_shape_are_refused() -> None:
    with pytest.raises(MlopsError, match=r"shape of the predictions of predict\(\): expected \[3\], found \[2\]"):
        run(TrainedModel(lambda rows: predict(rows)[1:], linear(WEIGHTS)))


def test_a_large_holdout_is_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    run_all = OnnxModel.run

    def noted(model: OnnxModel, feed: dict[str, Any]) -> list[Any]:
        asked.append(len(feed["features"]))
        return run_all(model, feed)

    monkeypatch.setattr(OnnxModel, "run", noted)
    monkeypatch.setattr("pipelines.training.package.ROWS_AT_ONCE", 2)
    assert run(TrainedModel(predict, linear(WEIGHTS))).predicted.tolist() == [9.0, 13.0, 17.0]
    assert asked == [2, 1]


def test_a_model_whose_prediction_depends_on_other_rows_is_refused() -> None:
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

    with pytest.raises(MlopsError, match="prediction for a row depends on other rows"):
        run(TrainedModel(centred, model))


def test_single_rows_are_checked_by_the_code_path_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.serving.runtime.OnnxModel.run_row", lambda model: [[9.1]])
    with pytest.raises(MlopsError, match="prediction for a row depends on other rows"):
        run(TrainedModel(predict, linear(WEIGHTS)))


def test_the_request_schema_lists_the_features_in_order_with_the_contracts_bounds(tmp_path: Path) -> None:
    serving = {**DECLARATION["serving"], "optional_features": ["member"]}
    project = make_project(tmp_path, serving=serving)
    model, contract = project.model(MODEL), project.contract(DATASET)
    ports: list[tuple[str, int, list[Any]]] = [
        ("features", TensorProto.FLOAT, ["rows", 3]),
        ("region", TensorProto.STRING, ["rows", 1]),
    ]
    outputs: list[tuple[str, int, list[Any]]] = [
        ("label", TensorProto.STRING, ["rows"]),
        ("probabilities", TensorProto.FLOAT, ["rows", 2]),
    ]
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
    assert (income.optional, member.optional) == (False, True)
    assert "optional" not in income.model_dump(), "servers of earlier versions can read it"
    assert member.values == (0, 1)
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
        (linear([1.0]), r"expected features FP32 \[-1, 2\], found features FP32 \[-1, 1\]"),
        (
            renamed(linear(WEIGHTS), "features", "measures"),
            r"expected features FP32 \[-1, 2\], found measures FP32 \[-1, 2\]",
        ),
        (
            renamed(linear(WEIGHTS), "prediction", "regression"),
            r"expected prediction FP32 .*, found regression FP32 \[-1, 1\]",
        ),
    ],
)
def test_a_model_with_other_inputs_or_outputs_is_refused(
    declared: tuple[Model, Contract], model: onnx.ModelProto, expected: str
) -> None:
    with pytest.raises(MlopsError, match=expected):
        request_schema(*declared, check_graph(model))


def test_golden_predictions_are_made_for_holdout_rows(declared: tuple[Model, Contract]) -> None:
    graph = check_graph(linear(WEIGHTS))
    rows = features_of(make_rows(), *declared)
    answers = answers_of("regression", TrainedModel(predict, linear(WEIGHTS)), graph, rows)
    golden = golden_predictions(request_schema(*declared, graph), declared[1], load_graph(graph), answers)
    (asked,), (said,) = golden.inputs, golden.outputs
    assert (asked.name, asked.shape, said.shape) == ("features", (5, 2), (5, 1))
    assert list(asked.data) == rows.to_numpy()[:5].ravel().tolist()
    (again,) = load_graph(graph).run({"features": np.array(asked.data, np.float32).reshape(asked.shape)})
    assert again.ravel().tolist() == list(said.data)


def test_golden_predictions_have_no_personal_value(tmp_path: Path) -> None:
    project = make_project(tmp_path, task="regression", target="income", features=["age", "loan_id"], gates=GATES)
    document = contract_document()
    age = next(column for column in document["schema"][0]["properties"] if column["name"] == "age")
    age |= {"classification": "confidential", "logicalTypeOptions": {"minimum": 18, "exclusiveMaximum": 30}}
    (project.root / "data-contracts" / f"{DATASET}.odcs.yaml").write_text(yaml.safe_dump(document))
    model, contract = project.model(MODEL), project.contract(DATASET)
    graph = check_graph(linear(WEIGHTS))
    rows = features_of(make_rows(), model, contract)
    rows["age"] = 77.0
    schema = request_schema(model, contract, graph)
    assert [column.personal for column in schema.inputs[0].columns] == [True, False]
    answers = answers_of("regression", TrainedModel(predict, linear(WEIGHTS)), graph, rows)
    golden = golden_predictions(schema, contract, load_graph(graph), answers)
    asked = np.array(golden.inputs[0].data).reshape(5, 2)
    assert asked[:, 1].tolist() == rows["loan_id"][:5].tolist()
    assert asked[:, 0].tolist() == [20.0, 22.0, 24.0, 25.0, 27.0]
    assert list(golden.outputs[0].data) == pytest.approx((asked @ WEIGHTS).tolist())
    files = {"model.onnx": graph.content, "schema.json": schema.model_dump_json().encode()}
    Predictor(linear_bundle().manifest, files).check_golden(golden)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"logicalType": "string", "enum": [{"value": "a"}, {"value": "b"}]}, ["a", "b", "a"]),
        ({"logicalType": "string"}, ["", "", ""]),
        ({"logicalType": "string", "required": True}, ["invented"] * 3),
        ({"logicalType": "boolean"}, [0, 1, 0]),
        ({"logicalType": "number"}, [1.0, 2.0, 3.0]),
        ({"logicalType": "integer", "logicalTypeOptions": {"exclusiveMinimum": 0, "maximum": 1}}, [1.0] * 3),
        ({"logicalType": "number", "logicalTypeOptions": {"maximum": -4}}, [-7.0, -6.0, -5.0]),
        ({"logicalType": "number", "logicalTypeOptions": {"minimum": 0, "maximum": 1}}, [0.25, 0.5, 0.75]),
    ],
)
def test_invented_values_keep_the_contract(changes: dict[str, Any], expected: list[Any]) -> None:
    kept = Column.model_validate_json(json.dumps({"name": "x", **changes}))
    assert invented_values(kept, 3) == expected


def test_features_have_the_precision_of_requests(tmp_path: Path) -> None:
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


def text_and_boolean_model() -> onnx.ModelProto:
    """Return a model of `member` and `region`, which predicts `member`."""
    nodes = [
        helper.make_node("Cast", ["features"], ["prediction"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["region"], ["unused"]),
    ]
    inputs = [("features", TensorProto.FLOAT, ["rows", 1]), ("region", TensorProto.STRING, ["rows", 1])]
    return make_model(nodes, inputs, [("prediction", TensorProto.FLOAT, ["rows", 1])])


def test_missing_text_with_listed_values_goes_from_the_contract_to_an_answer(tmp_path: Path) -> None:
    """And a boolean takes 0, 1 and null, but no other number."""
    project = make_project(tmp_path, task="regression", target="income", features=["member", "region"], gates=GATES)
    document = contract_document()
    region = next(column for column in document["schema"][0]["properties"] if column["name"] == "region")
    del region["required"]
    (project.root / "data-contracts" / f"{DATASET}.odcs.yaml").write_text(yaml.safe_dump(document))
    model, contract = project.model(MODEL), project.contract(DATASET)
    rows = make_rows().slice(0, 5)
    rows = rows.set_column(4, "region", pa.array(["north", None, "south", None, "north"]))
    exported = text_and_boolean_model()
    graph, features = check_graph(exported), features_of(rows, model, contract)
    features["member"] = features["member"].fillna(0.0)
    trained = TrainedModel(lambda frame: frame["member"].to_numpy(), exported)
    schema = request_schema(model, contract, graph)
    answers = answers_of("regression", trained, graph, features, ("region",))
    golden = golden_predictions(schema, contract, load_graph(graph), answers)
    sent = {tensor.name: list(tensor.data) for tensor in golden.inputs}
    assert sent["region"] == ["north", None, "south", None, "north"]

    files = {"model.onnx": graph.content, "schema.json": schema.model_dump_json().encode()}
    predictor = Predictor(linear_bundle().manifest, files)
    for values, expected in (([0], 200), ([1], 200), ([1.0], 200), ([None], 422), ([7], 400), ([0.5], 400)):
        inputs = [
            {"name": "features", "datatype": "FP32", "shape": [1, 1], "data": values},
            {"name": "region", "datatype": "BYTES", "shape": [1, 1], "data": [None]},
        ]
        try:
            predictor.answer(json.dumps({"inputs": inputs}).encode(), b"id")
            status = 200
        except RequestError as error:
            status = error.status
        assert (values, status) == (values, expected)
