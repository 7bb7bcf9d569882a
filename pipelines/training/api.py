"""Input and output of a model's training function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd


FEATURES = "features"
"""Name of the input tensor that holds the numeric features."""


@dataclass(frozen=True)
class TrainingData:
    """The rows to train on, without the holdout.

    Attributes:
        features: one column for each feature, in the order of `model.yaml`. Numbers and booleans are float64 with NaN
            for null, text is `str` with "" for null. Numbers have the precision of float32, like those in requests.
        target: typed as in the contract (booleans as 0 and 1); no nulls.
        parameters: `training.parameters` of `model.yaml`.
        seed: `training.seed` of `model.yaml`, for every random choice.
    """

    features: pd.DataFrame
    target: pd.Series
    parameters: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, as a function and as ONNX. The job checks on the holdout that both agree.

    Inputs of the ONNX graph: the numeric features in order as one FP32 tensor `features` [-1, n], and each text feature
    as a string tensor of its name [-1, 1]. Outputs for regression: `prediction` FP32 ([-1] or [-1, 1]). Outputs for
    classification: `label` (INT64 or string, [-1]) and `probabilities` FP32 [-1, classes].

    Attributes:
        predict: takes a frame like `TrainingData.features`; returns predictions (n,), or for classification
            probabilities (n, classes).
        onnx: the model, or its serialized bytes.
        classes: required for classification: the values of the target, as text or integers, in the order of the
            probabilities. The last of two is the positive one.
    """

    predict: Callable[[pd.DataFrame], np.ndarray]
    onnx: onnx.ModelProto | bytes
    classes: tuple[str | int, ...] | None = None
