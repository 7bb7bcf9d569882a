"""Export boosted trees of LightGBM, XGBoost and CatBoost, alone or as the last step of a scikit-learn pipeline.

None of these libraries is required. Whoever trains with one adds it to the requirements, and for the first two
`onnxmltools`, which converts them. Thresholds of scikit-learn's histogram gradient boosting are rounded here, too.
"""

from __future__ import annotations

import copy
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError
from pipelines.training.api import FEATURES

if TYPE_CHECKING:
    import onnx
    import pandas as pd

CONVERTED = {"lightgbm": ("LGBMClassifier", "LGBMRegressor"), "xgboost": ("XGBClassifier", "XGBRegressor")}
"""Library → its estimators that `onnxmltools` converts."""

_CONVERTERS = {
    "lightgbm": ("onnxmltools.convert.lightgbm.operator_converters.LightGbm", "convert_lightgbm"),
    "xgboost": ("onnxmltools.convert.xgboost.operator_converters.XGBoost", "convert_xgboost"),
}
"""Library → module and name of the function that converts its estimators."""

OPSETS = {"": 18, "ai.onnx.ml": 3}
"""Versions of the operator sets that `onnxmltools` converts to."""

_SHAPES = "skl2onnx.common.shape_calculator"


def last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline; any other estimator as it is."""
    steps = getattr(estimator, "steps", None)
    return last_step(steps[-1][1]) if steps else estimator


def library_of(estimator: Any) -> str:
    """Return the library that defines an estimator's last step, such as `sklearn`."""
    return type(last_step(estimator)).__module__.partition(".")[0]


def target_opset(estimator: Any) -> dict[str, int] | None:
    """Return the operator sets to convert an estimator to; None for skl2onnx's own choice."""
    return OPSETS if library_of(estimator) in CONVERTED else None


def convertible(estimator: Any) -> Any:
    """Prepare an estimator for skl2onnx: register the converters, and return a copy that they convert exactly.

    Raises:
        MlopsError: `onnxmltools` is not installed, or cannot convert this estimator.
    """
    library, kind = library_of(estimator), type(last_step(estimator)).__name__
    if library not in CONVERTED:
        return _with_rounded_thresholds(estimator)
    if kind not in CONVERTED[library]:
        raise MlopsError(
            f"{kind} of {library} cannot be exported: expected {' or '.join(CONVERTED[library])}",
            fix="use one of these, or return your own ONNX model",
        )
    try:
        _register(library)
    except ImportError as error:
        raise MlopsError(
            f"{kind} cannot be exported: {error}",
            fix="add onnxmltools to requirements/pipelines.in, then run `make lock`",
        ) from None
    if library == "lightgbm":
        return estimator
    # The converter of XGBoost reads the number of a column from the names f0, f1, …, which are those without names.
    unnamed = copy.deepcopy(estimator)
    last_step(unnamed).get_booster().feature_names = None
    return unnamed


def _with_rounded_thresholds(estimator: Any) -> Any:
    """Round the thresholds of scikit-learn's histogram gradient boosting down to float32, in a copy.

    skl2onnx rounds them to the nearest, but those of its other trees down. See `round_thresholds`.
    """
    import numpy as np

    if not hasattr(last_step(estimator), "_predictors"):
        return estimator
    rounded = copy.deepcopy(estimator)
    for iteration in last_step(rounded)._predictors:
        for tree in iteration:
            exact = tree.nodes["num_threshold"]
            with np.errstate(over="ignore"):  # a split of missing values from all others may have a huge threshold
                nearest = exact.astype(np.float32)
            tree.nodes["num_threshold"] = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return rounded


def _register(library: str) -> None:
    from skl2onnx import update_registered_converter

    shapes, module = import_module(_SHAPES), import_module(library)
    converters, function = _CONVERTERS[library]
    convert = getattr(import_module(converters), function)
    for kind in CONVERTED[library]:
        classifies = kind.endswith("Classifier")
        calculate = (
            "calculate_linear_classifier_output_shapes" if classifies else "calculate_linear_regressor_output_shapes"
        )
        options = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifies else {"split": None}
        update_registered_converter(
            getattr(module, kind), f"{library}{kind}", getattr(shapes, calculate), convert, options=options
        )


def round_thresholds(model: onnx.ModelProto, estimator: Any) -> None:
    """Round the thresholds of LightGBM down to float32. The converter rounds them to the nearest.

    A row goes left if its value is at most the threshold, which is a float64 between two values. Features are float32,
    so the greatest float32 that is not above the threshold decides the same for all of them; one above it does not.

    Args:
        model: the export, changed in place.
        estimator: the fitted estimator of LightGBM, or a pipeline that ends in it.
    """
    import numpy as np

    exact: dict[tuple[int, int, np.float32], float] = {}
    for tree in last_step(estimator).booster_.dump_model()["tree_info"]:
        for node in _splits(tree["tree_structure"]):
            if node["decision_type"] == "<=":
                threshold = float(node["threshold"])
                with np.errstate(over="ignore"):  # a split of missing values from all others has the greatest float64
                    rounded = np.float32(threshold)
                exact[tree["tree_index"], node["split_feature"], rounded] = threshold
    for node in model.graph.node:
        if node.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            continue
        found = {attribute.name: attribute for attribute in node.attribute}
        values = found["nodes_values"].floats
        for at, key in enumerate(
            zip(found["nodes_treeids"].ints, found["nodes_featureids"].ints, map(np.float32, values), strict=True)
        ):
            if found["nodes_modes"].strings[at] == b"BRANCH_LEQ" and exact.get(key, np.inf) < values[at]:
                values[at] = float(np.nextafter(key[2], np.float32(-np.inf)))


def _splits(root: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a tree that have a condition."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if "split_feature" in node:
            found.append(node)
            waiting += [node["left_child"], node["right_child"]]
    return found


def export_catboost(estimator: Any, features: pd.DataFrame) -> onnx.ModelProto:
    """Export an estimator of CatBoost by its own exporter.

    Raises:
        MlopsError: it is a step of a pipeline, or has features that are not numbers.
    """
    from pandas.api.types import is_numeric_dtype

    if last_step(estimator) is not estimator:
        raise MlopsError(
            "CatBoost cannot be exported as a step of a pipeline",
            fix="fit it on data.features alone; it needs neither scaling nor imputation of numbers",
        )
    text = [name for name in features.columns if not is_numeric_dtype(features[name])]
    if text:
        raise MlopsError(
            f"CatBoost cannot be exported with features that are text: found {', '.join(text)}",
            fix="train on the numeric features, or use LightGBM or XGBoost after an OneHotEncoder",
        )
    exported: onnx.ModelProto = import_module("catboost.utils").convert_to_onnx_object(estimator)
    return exported


def adapt(model: onnx.ModelProto, outputs: list[str]) -> None:
    """Change an export to the inputs and outputs that serving expects: names, shapes, tensors instead of maps.

    Args:
        model: the export, changed in place: one input of numbers; the prediction, or label and probabilities.
        outputs: names of its outputs, in order.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    if len(graph.input) == 1 and graph.input[0].name != FEATURES:
        _rename(graph, graph.input[0].name, FEATURES)
        graph.input[0].name = FEATURES
    for entry in graph.output:
        maps = [node for node in graph.node if node.op_type == "ZipMap" and entry.name in node.output]
        for node in maps:
            graph.node.remove(node)
            classes = max(len(attribute.ints) or len(attribute.strings) for attribute in node.attribute)
            entry.CopyFrom(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, classes]))
    for entry, name in zip(graph.output, outputs, strict=True):
        # A tensor may both be an output and feed another node, such as a cast of the label.
        _rename(graph, entry.name, name)
        entry.name = name
        # CatBoost declares a column of predictions as [rows], and LightGBM's converter labels as [1].
        shapes: dict[str, list[int | None]] = {"label": [None], "prediction": [None, 1]}
        shape = shapes.get(name)
        if shape is not None:
            entry.CopyFrom(helper.make_tensor_value_info(name, entry.type.tensor_type.elem_type, shape))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
