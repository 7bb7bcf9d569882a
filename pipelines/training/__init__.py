"""Train a model, evaluate it, and make a bundle of it.

What the author of a model needs is here: `train(data: TrainingData) -> TrainedModel`, and `from_sklearn` to make a
`TrainedModel` of a scikit-learn estimator.
"""

from pipelines.training.api import TrainedModel, TrainingData
from pipelines.training.sklearn_export import from_sklearn

__all__ = ["TrainedModel", "TrainingData", "from_sklearn"]
