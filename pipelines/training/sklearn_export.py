"""Export scikit-learn estimators to ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError
from pipelines.training.api import FEATURES, TrainedModel

if TYPE_CHECKING:
    import onnx
    import pandas as pd


def from_sklearn(estimator: Any, features: pd.DataFrame) -> TrainedModel:
    """Export a fitted estimator or pipeline to ONNX, with the inputs and outputs that serving expects.

    Args:
        estimator: a fitted regressor or classifier that takes a frame like `features`.
        features: `TrainingData.features`. Only its columns and types are used.

    Raises:
        MlopsError: skl2onnx cannot convert the estimator.
    """
    from pandas.api.types import is_numeric_dtype

    numeric = [name for name in features.columns if is_numeric_dtype(features[name])]
    classes = getattr(estimator, "classes_", None)
    model = _converted(estimator, list(features.columns), numeric)
    _make_stable(model, ["prediction"] if classes is None else ["label", "probabilities"])
    if classes is None:
        return TrainedModel(lambda rows: estimator.predict(rows).reshape(len(rows)), model)
    return TrainedModel(estimator.predict_proba, model, tuple(classes.tolist()))


def _converted(estimator: Any, names: list[str], numeric: list[str]) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    def convert(inputs: list[tuple[str, Any]]) -> Any:
        options = {"zipmap": False} if hasattr(estimator, "classes_") else None
        return convert_sklearn(estimator, initial_types=inputs, options=options)

    kind = type(estimator).__name__
    try:
        if numeric == names:
            try:
                return convert([(FEATURES, FloatTensorType([None, len(names)]))])
            except RuntimeError as error:
                # A ColumnTransformer selects columns by name, and one tensor has no column names.
                if "Unable to find column name" not in str(error):
                    raise
        model = convert(
            [(n, FloatTensorType([None, 1]) if n in numeric else StringTensorType([None, 1])) for n in names]
        )
    except Exception as error:
        raise MlopsError(
            f"skl2onnx cannot convert this {kind}: {str(error).strip().splitlines()[0]}",
            fix="use an estimator from https://onnx.ai/sklearn-onnx/supported.html, or return your own ONNX model",
        ) from error
    _join_inputs(model, numeric)
    return model


def _join_inputs(model: onnx.ModelProto, numeric: list[str]) -> None:
    """Replace the numeric inputs of a graph, one for each column, by one tensor `features`."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if not numeric:
        return
    rest = [entry for entry in model.graph.input if entry.name not in numeric]
    joined = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [None, len(numeric)])
    nodes = []
    for index, name in enumerate(numeric):
        # Every operator set that skl2onnx may choose has the same Gather; Split differs between them.
        at = f"{FEATURES}_{index}"
        model.graph.initializer.append(numpy_helper.from_array(np.array([index]), at))
        nodes.append(helper.make_node("Gather", [FEATURES, at], [name], name=f"take_{at}", axis=1))
    nodes.extend(model.graph.node)
    del model.graph.input[:], model.graph.node[:]
    model.graph.input.extend([joined, *rest])
    model.graph.node.extend(nodes)


def _make_stable(model: onnx.ModelProto, outputs: list[str]) -> None:
    """Name the outputs as serving expects, and replace the random names that skl2onnx chooses."""
    if len(model.graph.output) != len(outputs):
        found = ", ".join(entry.name for entry in model.graph.output)
        raise MlopsError(f"outputs of the converted model: expected {', '.join(outputs)}, found {found}")
    renamed = {entry.name: name for entry, name in zip(model.graph.output, outputs, strict=True)}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    for entry in model.graph.output:
        entry.name = renamed[entry.name]
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "rows"
    model.graph.name = "model"
    model.graph.doc_string = model.doc_string = ""
