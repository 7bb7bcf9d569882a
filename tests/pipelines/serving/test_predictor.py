"""A bundle loads only if its model matches its schema and still makes its golden predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipelines.declarations.bundle import GoldenPredictions, RequestColumn, RequestSchema, Tensor, TensorSpec
from pipelines.declarations.digests import canonical_json
from pipelines.declarations.errors import MlopsError
from pipelines.serving.predictor import Predictor
from tests.pipelines.serving.bundles import MadeBundle, classifier_bundle, graph, linear_bundle, mixed_bundle, with_file


def load(bundle: MadeBundle) -> Predictor:
    """Load a bundle and check its golden predictions."""
    predictor = Predictor(bundle.manifest, bundle.files)
    predictor.check_golden(GoldenPredictions.model_validate_json(bundle.files["golden.json"]))
    return predictor


def changed_schema(bundle: MadeBundle, **changes: object) -> MadeBundle:
    """Return the bundle with a changed request schema."""
    schema = RequestSchema.model_validate_json(bundle.files["schema.json"]).model_copy(update=changes)
    return with_file(bundle, "schema.json", canonical_json(schema.model_dump(mode="json")))


@pytest.mark.parametrize("bundle", [linear_bundle(), mixed_bundle(), classifier_bundle()])
def test_a_bundle_that_reproduces_its_golden_predictions_loads(bundle: MadeBundle) -> None:
    assert load(bundle).digest == bundle.digest


def test_a_golden_prediction_that_differs_is_an_error_that_names_the_value() -> None:
    with pytest.raises(MlopsError, match=r"golden.json: output 'variable', value 0: expected 91\.2, found 91\.09"):
        load(linear_bundle(expected=91.2))


def test_golden_predictions_within_the_tolerance_pass() -> None:
    load(linear_bundle(expected=91.1001))


def golden(output: Tensor) -> MadeBundle:
    """Return the linear bundle with another golden output."""
    made = linear_bundle()
    expected = GoldenPredictions.model_validate_json(made.files["golden.json"]).model_copy(
        update={"outputs": (output,)}
    )
    return with_file(made, "golden.json", canonical_json(expected.model_dump(mode="json")))


def test_a_golden_output_that_the_model_lacks_is_an_error() -> None:
    with pytest.raises(MlopsError, match="output 'score': the model does not return it"):
        load(golden(Tensor(name="score", datatype="FP32", shape=(1, 1), data=(1.0,))))


def test_a_golden_output_of_another_shape_is_an_error() -> None:
    with pytest.raises(MlopsError, match=r"expected the shape \[2, 1\], found \[1, 1\]"):
        load(golden(Tensor(name="variable", datatype="FP32", shape=(2, 1), data=(91.1, 91.1))))


def test_a_golden_request_that_the_schema_refuses_is_an_error() -> None:
    columns = tuple(RequestColumn(name=f"c{index}", maximum=1) for index in range(10))
    with pytest.raises(MlopsError, match="the model refuses its own golden request: input 'features', row 0"):
        load(linear_bundle(columns=columns))


@pytest.mark.parametrize("content", [b"", b"not ONNX", linear_bundle().files["model.onnx"][:-20]])
def test_a_model_that_is_not_onnx_is_an_error(content: bytes) -> None:
    with pytest.raises(MlopsError, match=r"model\.onnx cannot be loaded"):
        load(with_file(linear_bundle(), "model.onnx", content))


@pytest.mark.parametrize("absolute", [False, True])
def test_external_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.ones((10, 1), np.float32).tobytes())
    weights = numpy_helper.from_array(np.ones((10, 1), np.float32), "weights")
    onnx.external_data_helper.set_external_data(
        weights, str(tmp_path / "weights.bin") if absolute else "weights.bin", offset=0, length=40
    )
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    made = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["variable"])],
        "outside",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 10])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(MlopsError, match=r"model\.onnx cannot be loaded.*external|path"):
        load(with_file(linear_bundle(), "model.onnx", model.SerializeToString()))


def test_custom_operators_are_refused() -> None:
    made = helper.make_graph(
        [helper.make_node("Shell", ["features"], ["variable"], domain="com.example")],
        "custom",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 10])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    with pytest.raises(MlopsError, match=r"model\.onnx cannot be loaded"):
        load(with_file(linear_bundle(), "model.onnx", model.SerializeToString()))


def test_a_schema_with_other_inputs_than_the_model_is_an_error() -> None:
    node = [helper.make_node("Identity", ["x"], ["variable"])]
    other = graph(node, {"x": (TensorProto.FLOAT, 1)}, {"variable": (TensorProto.FLOAT, 1)})
    with pytest.raises(MlopsError, match=r"inputs of model\.onnx: expected .*'features'.*, found .*'x'"):
        load(with_file(linear_bundle(), "model.onnx", other))


def test_a_schema_with_other_outputs_than_the_model_is_an_error() -> None:
    outputs = (TensorSpec(name="score", datatype="FP32", shape=(-1, 1)),)
    with pytest.raises(MlopsError, match=r"outputs of model\.onnx: expected .*'score'"):
        load(changed_schema(linear_bundle(), outputs=outputs))


def test_a_schema_whose_columns_do_not_fit_its_shape_is_an_error() -> None:
    with pytest.raises(MlopsError, match=r"with 1 columns: expected \[-1, 1\], found \[-1, 10\]"):
        load(linear_bundle(columns=(RequestColumn(name="only"),)))


def test_an_output_whose_first_dimension_is_not_rows_is_an_error() -> None:
    outputs = (TensorSpec(name="variable", datatype="FP32", shape=(1,)),)
    with pytest.raises(MlopsError, match=r"shape of 'variable': expected \[-1, …\], found \[1\]"):
        load(changed_schema(linear_bundle(), outputs=outputs))


def test_a_file_that_is_not_a_schema_is_an_error() -> None:
    with pytest.raises(MlopsError, match=r"schema\.json"):
        load(with_file(linear_bundle(), "schema.json", b"{}"))


def test_a_schema_may_omit_outputs_of_the_model() -> None:
    schema = RequestSchema.model_validate_json(mixed_bundle().files["schema.json"])
    predictor = load(changed_schema(mixed_bundle(), outputs=schema.outputs[:1]))
    assert [output["name"] for output in predictor.metadata()["outputs"]] == ["quotient"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads where Linux lists them")
def test_the_model_runs_on_the_calling_thread() -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    load(linear_bundle())
    assert len(list(Path("/proc/self/task").iterdir())) == before
