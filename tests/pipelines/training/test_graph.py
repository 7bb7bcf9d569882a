from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.errors import MlopsError
from pipelines.training.onnx_graph import check_graph
from tests.pipelines.training.models import OPSET, linear, load_graph, make_model

FLOATS = [("features", TensorProto.FLOAT, ["rows", 2])]
PREDICTION = [("prediction", TensorProto.FLOAT, ["rows", 2])]


def test_a_model_from_any_framework_is_checked_and_run() -> None:
    graph = check_graph(linear([2.0, -1.0]).SerializeToString())
    assert graph.inputs == (TensorSpec(name="features", datatype="FP32", shape=(-1, 2)),)
    assert graph.outputs == (TensorSpec(name="prediction", datatype="FP32", shape=(-1, 1)),)
    (prediction,) = load_graph(graph).run({"features": np.array([[1, 1], [3, 0]], np.float32)})
    assert prediction.tolist() == [[1.0], [6.0]]


def test_equal_models_have_equal_bytes() -> None:
    assert check_graph(linear([1.0])).content == check_graph(linear([1.0])).content


def custom_operator() -> onnx.ModelProto:
    node = helper.make_node("Run", ["features"], ["prediction"], domain="com.example")
    return make_model([node], FLOATS, PREDICTION, opsets=[*OPSET, helper.make_opsetid("com.example", 1)])


def custom_operator_inside_a_branch() -> onnx.ModelProto:
    hidden = helper.make_node("Run", ["features"], ["b"], domain="com.example")
    branch = helper.make_graph([hidden], "b", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["rows", 2])])
    node = helper.make_node("If", ["always"], ["prediction"], then_branch=branch, else_branch=branch)
    opsets = [*OPSET, helper.make_opsetid("com.example", 1)]
    return make_model([node], FLOATS, PREDICTION, {"always": np.array(True)}, opsets)


def random_operator() -> onnx.ModelProto:
    return make_model([helper.make_node("RandomNormalLike", ["features"], ["prediction"])], FLOATS, PREDICTION)


def weights_outside() -> onnx.ModelProto:
    model = linear([1.0, 2.0])
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return model


def ill_formed() -> onnx.ModelProto:
    return make_model([helper.make_node("MatMul", ["features", "nowhere"], ["prediction"])], FLOATS, PREDICTION)


def two_unknown_dimensions() -> onnx.ModelProto:
    ports = [("features", TensorProto.FLOAT, ["rows", "columns"])], [("prediction", TensorProto.FLOAT, ["rows", "c"])]
    return make_model([helper.make_node("Neg", ["features"], ["prediction"])], *ports)


def a_list_of_tensors() -> onnx.ModelProto:
    value = helper.make_tensor_sequence_value_info("prediction", TensorProto.FLOAT, ["rows", 2])
    model = make_model([helper.make_node("SequenceConstruct", ["features"], ["prediction"])], FLOATS, PREDICTION)
    model.graph.output[0].CopyFrom(value)
    return model


def custom_functions() -> onnx.ModelProto:
    model = linear([1.0, 2.0])
    model.functions.add(name="f", domain="local")
    return model


REFUSED = {
    custom_operator: "operator set of Run .* found 'com.example'",
    custom_operator_inside_a_branch: "operator set of Run .* found 'com.example'",
    random_operator: "expected deterministic ones, found RandomNormalLike",
    weights_outside: "weights 'w' .* found in another file",
    ill_formed: "is not valid",
    two_unknown_dimensions: r"shape of input 'features' .* found \[-1, -1\]",
    a_list_of_tensors: "output 'prediction' of the ONNX model: expected a tensor",
    custom_functions: "functions in the ONNX model: expected none, found f",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_a_model_that_cannot_be_served_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(MlopsError, match=REFUSED[make]):
        check_graph(make())


def test_a_model_for_a_fixed_number_of_rows_is_refused() -> None:
    with pytest.raises(MlopsError, match=r"expected -1 for the number of rows .* found \[1, 2\]"):
        check_graph(linear([1.0, 2.0], rows=1))


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", Path(__file__).read_bytes()])
def test_bytes_that_are_not_a_model_are_refused(content: bytes) -> None:
    with pytest.raises(MlopsError):
        check_graph(content)


def test_a_model_over_the_size_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.onnx_graph.LARGEST_MODEL", 10)
    with pytest.raises(MlopsError, match="expected at most 10 bytes"):
        check_graph(linear([1.0]))
