"""Logistic regression on categories. Whole categories of people are rare, so a penalty keeps their weights small."""

from __future__ import annotations

from pandas.api.types import is_numeric_dtype
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipelines.training import TrainedModel, TrainingData, from_sklearn


def train(data: TrainingData) -> TrainedModel:
    """Fit the model. The parameter `c` is the inverse strength of the penalty."""
    numbers = [name for name in data.features if is_numeric_dtype(data.features[name])]
    texts = [name for name in data.features if name not in numbers]
    estimator = make_pipeline(
        make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), texts)),
        LogisticRegression(C=float(data.parameters["c"]), max_iter=1000, random_state=data.seed),
    )
    estimator.fit(data.features, data.target)
    return from_sklearn(estimator, data.features)
