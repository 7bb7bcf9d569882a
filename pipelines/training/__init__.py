"""Training: train a model, evaluate it and package it as a bundle.

Authors of models write `train(data: TrainingData) -> TrainedModel`. `from_sklearn` makes a `TrainedModel` from a
scikit-learn estimator.
"""

from pipelines.training.api import TrainedModel, TrainingData
from pipelines.training.sklearn_export import from_sklearn

__all__ = ["TrainedModel", "TrainingData", "from_sklearn"]
