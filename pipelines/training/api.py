"""What a model's training function gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd


@dataclass(frozen=True)
class TrainingData:
    """The rows to train on, without the holdout.

    Attributes:
        features: one column for each feature in `model.yaml`, in that order: numbers (booleans too) as float64 with
            NaN where there is no value, text as `str` with "" where there is none. Numbers have the precision of a
            float32, because that is what a request carries.
        target: as the contract types it (booleans as 0 and 1); no nulls.
        parameters: `training.parameters` of `model.yaml`.
        seed: `training.seed` of `model.yaml`, for every random choice.
    """

    features: pd.DataFrame
    target: pd.Series
    parameters: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, as a function and as ONNX; that the two agree is checked on the holdout.

    The ONNX graph takes the numeric features as one FP32 tensor `features` [-1, n], in their order, and each text
    feature as a string tensor of its name [-1, 1]. It gives, for regression, `prediction` FP32 ([-1] or [-1, 1]); for
    classification `label` (INT64 or string, [-1]) and `probabilities` FP32 [-1, classes].

    Attributes:
        predict: from a frame like `TrainingData.features`: the predictions (n,), or for classification the
            probabilities (n, classes).
        onnx: the model, or its serialised bytes.
        classes: for classification, in the order of the probabilities.
    """

    predict: Callable[[pd.DataFrame], np.ndarray]
    onnx: onnx.ModelProto | bytes
    classes: tuple[str | int, ...] | None = None
