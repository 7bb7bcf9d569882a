"""Export estimators with the interface of scikit-learn to ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError
from pipelines.training.api import FEATURES, TrainedModel
from pipelines.training.boosted_trees import (
    adapt,
    convertible,
    export_catboost,
    last_step,
    library_of,
    round_thresholds,
    target_opset,
)
from pipelines.training.onnx_graph import first_line

if TYPE_CHECKING:
    import onnx
    import pandas as pd


def from_sklearn(estimator: Any, features: pd.DataFrame) -> TrainedModel:
    """Export a fitted estimator or pipeline to ONNX, with the inputs and outputs that serving expects.

    Args:
        estimator: a fitted regressor or classifier of scikit-learn, LightGBM, XGBoost or CatBoost that takes a frame
            like `features`, or a pipeline that ends in one.
        features: `TrainingData.features`. Only its columns and types are used.

    Raises:
        MlopsError: the estimator has no probabilities, or cannot be converted.
    """
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    kind = type(last_step(estimator)).__name__
    if not hasattr(estimator, "predict"):
        raise MlopsError(
            f"{kind} has no predict(): expected a fitted regressor or classifier",
            fix="pass the fitted estimator, or a pipeline that ends in one",
        )
    classes = getattr(estimator, "classes_", None)
    if classes is not None and len(classes) == 0:  # CatBoost's regressor
        classes = None
    if classes is not None and not hasattr(estimator, "predict_proba"):
        raise MlopsError(
            f"{kind} has no predict_proba(): expected a classifier with probabilities",
            fix="wrap it: CalibratedClassifierCV(estimator).fit(data.features, data.target); SVC has the argument "
            "probability=True",
        )
    outputs = ["prediction"] if classes is None else ["label", "probabilities"]
    library = library_of(estimator)
    if library == "catboost":
        model = export_catboost(estimator, features)
        adapt(model, outputs)
    else:
        numeric = [name for name in features.columns if is_numeric_dtype(features[name])]
        model = _converted(convertible(estimator), list(features.columns), numeric)
        if library == "lightgbm":
            round_thresholds(model, estimator)
    _make_stable(model, outputs)
    if classes is None:
        return TrainedModel(lambda rows: np.asarray(estimator.predict(rows)).reshape(len(rows)), model)
    return TrainedModel(estimator.predict_proba, model, tuple(np.asarray(classes).tolist()))


def _converted(estimator: Any, names: list[str], numeric: list[str]) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    def convert(inputs: list[tuple[str, Any]]) -> Any:
        options = {"zipmap": False} if hasattr(estimator, "classes_") else None
        return convert_sklearn(estimator, initial_types=inputs, options=options, target_opset=target_opset(estimator))

    kind = type(last_step(estimator)).__name__
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
            f"skl2onnx cannot convert this {kind}: {first_line(error)}",
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
