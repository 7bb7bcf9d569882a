"""A classifier with constant predictions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from pipelines.training import TrainedModel
from tests.pipelines.training.models import make_model


def constant(classes: tuple[str, str]) -> TrainedModel:
    """Make a classifier of one numeric feature with probabilities of 0.9 and 0.1 for each row."""
    nodes = [
        helper.make_node("Mul", ["features", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "said"], ["probabilities"]),
        helper.make_node("ReduceSum", ["nothing", "axes"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["names", "index"], ["label"]),
    ]
    weights = {
        "zero": np.zeros((1, 2), np.float32),
        "said": np.array([[0.9, 0.1]], np.float32),
        "axes": np.array([1]),
        "names": np.array(classes, dtype=object),
    }
    model = make_model(
        nodes,
        [("features", TensorProto.FLOAT, ["rows", 1])],
        [("label", TensorProto.STRING, ["rows"]), ("probabilities", TensorProto.FLOAT, ["rows", 2])],
        weights,
    )
    return TrainedModel(lambda rows: np.tile([[0.9, 0.1]], (len(rows), 1)), model, classes)
