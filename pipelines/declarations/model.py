"""Model declaration, `models/<name>/model.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from pipelines.declarations.documents import Declaration, Key, KeyedError
from pipelines.declarations.inference_logging import InferenceLogging
from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.declarations.names import ColumnName, Name, TagValue
from pipelines.declarations.shadow_traffic import ShadowStep

Task = Literal["regression", "classification"]

METRICS: dict[Task, dict[str, Literal["lower", "higher"]]] = {
    "regression": {"rmse": "lower", "mae": "lower", "r2": "higher"},
    "classification": {
        "accuracy": "higher",
        "balanced_accuracy": "higher",
        "precision": "higher",
        "recall": "higher",
        "f1": "higher",
        "roc_auc": "higher",
        "log_loss": "lower",
        "selection_rate": "higher",
    },
}
"""Metrics of an evaluation by task, and which direction is better."""

TARGET_TYPES: dict[Task, tuple[str, ...]] = {
    "regression": ("integer", "number"),
    "classification": ("string", "integer", "boolean"),
}
"""Types of the target column, by task."""

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$")]
"""Kubernetes quantity: `500m`, `2`, `512Mi`."""

Text = Annotated[str, StringConstraints(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Resources(Declaration):
    """Requests and limits of a container.

    Attributes:
        cpu: cores (`500m` is half a core).
        memory: bytes (`512Mi`).
    """

    cpu: Quantity
    memory: Quantity


class Slice(Declaration):
    """Named part of the holdout that is evaluated separately.

    Attributes:
        name: name of the slice.
        column: column of the contract that selects the rows.
        minimum: select rows with at least this value.
        below: select rows with less than this value.
        equals: select rows with exactly this value; instead of `minimum` and `below`.
    """

    name: Name
    column: ColumnName
    minimum: Finite | None = None
    below: Finite | None = None
    equals: str | int | float | bool | None = None

    @model_validator(mode="after")
    def _says_which_rows(self) -> Slice:
        ranged = self.minimum is not None or self.below is not None
        if ranged == (self.equals is not None):
            raise ValueError("either equals, or minimum and/or below; found both or neither")
        return self


class Training(Declaration):
    """Training of a model.

    Attributes:
        entrypoint: training function in the model's folder, `module:function`.
        seed: random seed.
        holdout: share of the rows withheld from training, chosen by their keys.
        sample: share of the other rows that the function gets, chosen by their keys; None for all. The holdout stays
            whole.
        parameters: passed to the function unchanged.
        resources: resources of the training job.
        retrain_on: what starts a training without a request. `new-data`: the dataset has a new version.
        deadline_seconds: maximum duration of a run.
    """

    entrypoint: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*:[a-z_][a-z0-9_]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    holdout: Share = 0.25
    sample: Share | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    resources: Resources
    retrain_on: tuple[Literal["new-data"], ...] = ()
    deadline_seconds: Annotated[int, Field(gt=0)] = 3600


class Threshold(Declaration):
    """Bound of a metric on the holdout.

    Attributes:
        metric: metric of the task.
        minimum: least value that passes.
        maximum: greatest value that passes.
    """

    metric: str
    minimum: Finite | None = None
    maximum: Finite | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Threshold:
        if self.minimum is None and self.maximum is None:
            raise ValueError("minimum or maximum; found neither")
        return self


class Champion(Declaration):
    """Allowed regression of a candidate against the bundle it replaces, on the same holdout.

    Attributes:
        metric: the metric to compare.
        maximum_regression: share of the champion's value (0.02 allows 2 % worse).
        confidence: confidence of the bootstrap interval that must lie within the bound.
    """

    metric: str
    maximum_regression: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    confidence: Share = 0.95


class Fairness(Declaration):
    """Bound on how much a metric may differ between the groups of a protected attribute.

    Attributes:
        attribute: a protected attribute of the model.
        metric: metric of the task, computed for each group.
        maximum_difference: between the best and the worst group, in units of the metric.
        maximum_ratio: of the greatest to the least value, both positive.
        minimum_group_size: rows; a smaller group makes the verdict inconclusive, never a pass.
    """

    attribute: ColumnName
    metric: str
    maximum_difference: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    maximum_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    minimum_group_size: Annotated[int, Field(ge=1)] = 30

    @model_validator(mode="after")
    def _has_a_bound(self) -> Fairness:
        if (self.maximum_difference is None) == (self.maximum_ratio is None):
            raise ValueError("either maximum_difference or maximum_ratio; found both or neither")
        return self


class Leakage(Declaration):
    """Bound on holdout rows whose features and target equal those of a training row.

    Where rows are measurements, none may. Where they are answers from short lists, people have equal ones by chance.

    Attributes:
        maximum_share: greatest share of such rows in the holdout.
    """

    maximum_share: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Latency(Declaration):
    """Latency budget of a request with one row, measured in the serving runtime.

    Attributes:
        p99_ms: 99th percentile, in milliseconds.
    """

    p99_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Soak(Declaration):
    """Traffic that a bundle must have served in one environment before it may go to the next. All must be met.

    Attributes:
        requests: least number of requests served.
        seconds: least time since the bundle was verified.
        maximum_error_rate: greatest share of requests with a server error. With zero, a single error would block the
            bundle for good.
    """

    requests: Annotated[int, Field(ge=0)]
    seconds: Annotated[int, Field(ge=0)]
    maximum_error_rate: Annotated[float, Field(ge=0, lt=1)] = 0.001


class Gates(Declaration):
    """Bounds that a candidate must keep to be promoted."""

    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)]
    champion: Champion
    fairness: tuple[Fairness, ...] = ()
    leakage: Leakage = Leakage()
    latency: Latency
    soak: Soak


class RolloutStep(Declaration):
    """Traffic step of a rollout.

    Attributes:
        weight: percentage of traffic to the new bundle.
        pause_seconds: how long to keep that weight, unless the canary check stops the release before.
    """

    weight: Annotated[int, Field(ge=1, le=99)]
    pause_seconds: Annotated[int, Field(ge=0, le=86_400)]


IN_FLIGHT_METRIC = "inference_requests_in_flight"
"""Metric of serving pods that `concurrency` refers to."""


class Replicas(Declaration):
    """Bounds of the autoscaler on the number of serving pods.

    Attributes:
        minimum: at least 2, so a node can be drained.
        maximum: at least the minimum.
        concurrency: requests in flight for each pod above which pods are added; None to go by CPU time alone. The
            cluster must serve the metric `IN_FLIGHT_METRIC` of pods.
    """

    minimum: Annotated[int, Field(ge=2)] = 2
    maximum: Annotated[int, Field(ge=2)] = 4
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Replicas:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum to be at least minimum; found {self.maximum} and {self.minimum}")
        return self


PREDICTION_DISTANCE = 0.3
"""Default of `serving.canary.prediction_distance`, which serving images assume if a check is told nothing else."""


class CanaryPolicy(Declaration):
    """How a release on trial is compared with the live one.

    Attributes:
        error_increase: increase of the error rate that must be found before a canary may pass: 0.1 is one request in
            ten. A smaller one needs more requests.
        prediction_shift: allowed change of the mean prediction, in standard deviations of the live predictions.
        prediction_distance: allowed distance between the distributions of predictions, apart from a shift of all of
            them, in standard deviations of the live predictions. 0.3 is a spread that changes by a factor of 1.4.
        wait_seconds: how long to wait for enough requests after the pause of a step, in environments with
            `on_inconclusive: pause`.
    """

    error_increase: Share = 0.1
    prediction_shift: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    prediction_distance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = PREDICTION_DISTANCE
    wait_seconds: Annotated[int, Field(ge=0, le=86_400)] = 1800


class Serving(Declaration):
    """Serving of a model.

    Attributes:
        replicas: bounds of the number of pods.
        resources: resources of each pod.
        shadow: first step of a rollout, before any traffic; None to begin with traffic.
        rollout: traffic steps of a rollout.
        canary: how a release on trial is compared with the live one.
        inference_log: what the pods log.
        optional_features: features that a request may leave out, so that callers of an earlier version are answered.
            Those that are numbers are the last numbers of `features`.
    """

    replicas: Replicas = Replicas()
    resources: Resources
    shadow: ShadowStep | None = None
    rollout: tuple[RolloutStep, ...] = ()
    canary: CanaryPolicy = CanaryPolicy()
    inference_log: InferenceLogging = InferenceLogging()
    optional_features: tuple[ColumnName, ...] = ()

    @property
    def check_seconds(self) -> tuple[int, ...]:
        """Declared durations of the canary checks of a rollout, in order."""
        first = () if self.shadow is None else (self.shadow.pause_seconds,)
        return (*first, *(step.pause_seconds for step in self.rollout))

    @model_validator(mode="after")
    def _shadow_comes_first(self) -> Serving:
        if self.shadow is not None and not self.rollout:
            raise ValueError("traffic steps in rollout after shadow; found none")
        return self


class BatchPrediction(Declaration):
    """Prediction by batch, in the environments where the model is released.

    Attributes:
        datasets: datasets whose versions may be predicted, besides the one that the model is trained on.
        resources: resources of the job.
        retention_days: days after which predictions are removed; None to keep them. What was predicted by which bundle
            stays on record.
        deadline_seconds: maximum duration of a run: at most five days. Files that no version of a table names are
            removed when they are seven days old, so a run that takes longer could lose those that it has written.
    """

    datasets: tuple[Name, ...] = ()
    resources: Resources = Resources(cpu="1", memory="2Gi")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    deadline_seconds: Annotated[int, Field(gt=0, le=5 * 86_400)] = 3600


class Model(Declaration):
    """`models/<name>/model.yaml`.

    Attributes:
        name: name of the model and of its folder.
        objective: what the model should achieve.
        intended_use: what its predictions may, and may not, be used for.
        owner: team that owns the model.
        task: regression or classification.
        contract: dataset to train on, a file in `data-contracts/`.
        target: column to predict.
        features: columns to predict from, in the order of a request.
        protected: attributes to report fairness for; they need not be features.
        slices: parts of the holdout to evaluate separately.
        batch: how the model predicts files and dataset versions.
        monitoring: how the model is monitored where it is released.
    """

    name: Name
    objective: Text
    intended_use: Text
    owner: TagValue
    task: Task
    contract: Name
    target: ColumnName
    features: Annotated[tuple[ColumnName, ...], Field(min_length=1)]
    protected: tuple[ColumnName, ...] = ()
    slices: tuple[Slice, ...] = ()
    training: Training
    gates: Gates
    serving: Serving
    batch: BatchPrediction = BatchPrediction()
    monitoring: ModelMonitoring = ModelMonitoring()

    @property
    def needed_columns(self) -> frozenset[str]:
        """Columns of the contract that training reads: features, target, protected attributes, and those of slices."""
        return frozenset({self.target, *self.features, *self.protected, *(part.column for part in self.slices)})

    @property
    def predicted_datasets(self) -> tuple[str, ...]:
        """The datasets whose versions may be predicted by batch, each once."""
        return tuple(dict.fromkeys((self.contract, *self.batch.datasets)))

    @model_validator(mode="after")
    def _holds_together(self) -> Model:
        problems: list[tuple[Key, str, str]] = []
        for index, feature in enumerate(self.features):
            if feature == self.target:
                problems.append((("features", index), "a column other than the target", repr(feature)))
            elif feature in self.features[:index]:
                problems.append((("features", index), "each feature once", f"{feature!r} twice"))
        gates = self.gates
        named: list[tuple[Key, str]] = [(("champion", "metric"), gates.champion.metric)]
        named += [(("thresholds", index, "metric"), bound.metric) for index, bound in enumerate(gates.thresholds)]
        named += [(("fairness", index, "metric"), bound.metric) for index, bound in enumerate(gates.fairness)]
        for key, metric in named:
            if metric not in METRICS[self.task]:
                expected = f"a metric of {self.task} ({', '.join(METRICS[self.task])})"
                problems.append((("gates", *key), expected, repr(metric)))
        for index, bound in enumerate(gates.fairness):
            if bound.attribute not in self.protected:
                expected = f"an attribute of protected ({', '.join(self.protected) or 'none'})"
                problems.append((("gates", "fairness", index, "attribute"), expected, repr(bound.attribute)))
        for index, feature in enumerate(self.monitoring.ignored_features):
            if feature not in self.features:
                problems.append((("monitoring", "ignored_features", index), "a feature of the model", repr(feature)))
        for index, feature in enumerate(self.serving.optional_features):
            if feature not in self.features:
                problems.append((("serving", "optional_features", index), "a feature of the model", repr(feature)))
        problems += [(key, "a number that JSON holds exactly", found) for key, found in _inexact(self.model_dump(), ())]
        if problems:
            raise KeyedError(*problems)
        return self


LARGEST_INTEGER = 2**53 - 1
"""Largest integer that JSON holds exactly everywhere (RFC 7493). Digests of declarations are made from JSON."""


def _inexact(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    """Yield the place of each number that JSON does not hold exactly, and the number as text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _inexact(item, (*key, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _inexact(item, (*key, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, str(value)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        yield key, str(value) if abs(value) < 10**30 else "a larger one"
