"""Ridge regression on standardized measurements. 442 patients are too few for more than a linear model."""

from __future__ import annotations

from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.training import TrainedModel, TrainingData, from_sklearn


def train(data: TrainingData) -> TrainedModel:
    """Fit the model. The parameter `alpha` is the strength of the ridge penalty."""
    estimator = make_pipeline(StandardScaler(), Ridge(alpha=float(data.parameters["alpha"])))
    estimator.fit(data.features, data.target)
    return from_sklearn(estimator, data.features)
