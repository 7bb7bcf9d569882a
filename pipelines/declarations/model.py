"""A model's declaration, `models/<name>/model.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import ColumnName, Name

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
"""The metrics that an evaluation reports, by task, and which direction is better."""

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$")]
"""A Kubernetes quantity: `500m`, `2`, `512Mi`."""

Text = Annotated[str, StringConstraints(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Resources(Declaration):
    """What a container asks for and may not exceed.

    Attributes:
        cpu: cores (`500m` is half of one).
        memory: bytes (`512Mi`).
    """

    cpu: Quantity
    memory: Quantity


class Slice(Declaration):
    """A named part of the holdout that is evaluated on its own: rows whose column lies in [minimum, below), or equals.

    Attributes:
        name: the slice's name.
        column: a column of the contract.
        minimum: rows at or above this value.
        below: rows under this value.
        equals: rows with exactly this value.
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
            raise ValueError("minimum and/or below, or equals; found both or neither")
        return self


class Training(Declaration):
    """How the model is trained.

    Attributes:
        entrypoint: `module:function` in the model's folder (`train:train`).
        seed: seed of every random choice.
        holdout: share of the rows that training never sees, chosen by the rows' keys.
        parameters: what the function gets, as it is.
        resources: of the training job.
        schedule: a cron expression in UTC, or None: only on request.
        deadline_seconds: a run that takes longer is ended.
    """

    entrypoint: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*:[a-z_][a-z0-9_]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    holdout: Share = 0.25
    parameters: dict[str, Any] = Field(default_factory=dict)
    resources: Resources
    schedule: Annotated[str, StringConstraints(pattern=r"^(\S+ ){4}\S+$")] | None = None
    deadline_seconds: Annotated[int, Field(gt=0)] = 3600


class Threshold(Declaration):
    """A bound that a metric on the holdout must keep.

    Attributes:
        metric: a metric of the task.
        minimum: the least value that passes.
        maximum: the greatest value that passes.
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
    """How much worse than the bundle it replaces a candidate may be, on the same holdout.

    Attributes:
        metric: the metric that is compared.
        maximum_regression: as a share of the champion's value (0.02: two percent worse at most).
        confidence: of the bootstrap interval that must lie within that bound.
    """

    metric: str
    maximum_regression: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    confidence: Share = 0.95


class Fairness(Declaration):
    """A bound on the difference of a metric between the groups of a protected attribute.

    Attributes:
        attribute: one of the model's protected attributes.
        metric: a metric of the task, taken per group.
        maximum_difference: between the best and the worst group, in units of the metric.
        maximum_ratio: of the greatest to the least, both positive.
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
            raise ValueError("maximum_difference or maximum_ratio; found both or neither")
        return self


class Latency(Declaration):
    """The budget of one request of one row, measured in the serving runtime.

    Attributes:
        p99_ms: 99th percentile, in milliseconds.
    """

    p99_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Soak(Declaration):
    """What a bundle must have served, healthy, in one environment before it may go to the next. Both must be met.

    Attributes:
        requests: number answered.
        seconds: time since it was verified.
        maximum_error_rate: share of the requests that may have ended in a server error. Not zero unless you say so: one
            error, on whatever day, would keep a bundle from going on for ever.
    """

    requests: Annotated[int, Field(ge=0)]
    seconds: Annotated[int, Field(ge=0)]
    maximum_error_rate: Annotated[float, Field(ge=0, lt=1)] = 0.001


class Gates(Declaration):
    """The bounds a candidate must keep to be promoted."""

    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)]
    champion: Champion
    fairness: tuple[Fairness, ...] = ()
    latency: Latency
    soak: Soak


class RolloutStep(Declaration):
    """One step of taking a release live.

    Attributes:
        weight: percent of the traffic that the new bundle gets.
        pause_seconds: how long it is watched at that weight.
    """

    weight: Annotated[int, Field(ge=1, le=99)]
    pause_seconds: Annotated[int, Field(ge=0)]


class Replicas(Declaration):
    """How many serving pods; the autoscaler stays between the two.

    Attributes:
        minimum: at least 2, so that a node can be drained.
        maximum: at least the minimum.
    """

    minimum: Annotated[int, Field(ge=2)] = 2
    maximum: Annotated[int, Field(ge=2)] = 4

    @model_validator(mode="after")
    def _in_order(self) -> Replicas:
        if self.maximum < self.minimum:
            raise ValueError(f"a maximum of at least the minimum; found {self.maximum} under {self.minimum}")
        return self


class Serving(Declaration):
    """How the model is served."""

    replicas: Replicas = Replicas()
    resources: Resources
    rollout: tuple[RolloutStep, ...] = ()


class Model(Declaration):
    """`models/<name>/model.yaml`: everything about a model that is decided by people.

    Attributes:
        name: the folder's name.
        objective: what the model is to achieve.
        intended_use: what its predictions may, and may not, be used for.
        owner: the team that answers for it.
        task: regression or classification.
        contract: the dataset it is trained on, a file in `data-contracts/`.
        target: the column that is predicted.
        features: the columns it is predicted from, in the order of the request.
        protected: attributes for which fairness is reported; they need not be features.
        slices: parts of the data that are evaluated on their own.
    """

    name: Name
    objective: Text
    intended_use: Text
    owner: Text
    task: Task
    contract: Name
    target: ColumnName
    features: Annotated[tuple[ColumnName, ...], Field(min_length=1)]
    protected: tuple[ColumnName, ...] = ()
    slices: tuple[Slice, ...] = ()
    training: Training
    gates: Gates
    serving: Serving

    @model_validator(mode="after")
    def _holds_together(self) -> Model:
        if self.target in self.features:
            raise ValueError(f"features without the target; found {self.target!r} among them")
        if len(set(self.features)) != len(self.features):
            raise ValueError("each feature once; found one twice")
        named = [t.metric for t in self.gates.thresholds]
        named += [self.gates.champion.metric, *(f.metric for f in self.gates.fairness)]
        for metric in named:
            if metric not in METRICS[self.task]:
                known = ", ".join(METRICS[self.task])
                raise ValueError(f"gates on metrics of {self.task} ({known}); found {metric!r}")
        for bound in self.gates.fairness:
            if bound.attribute not in self.protected:
                raise ValueError(
                    f"fairness bounds on protected attributes; found {bound.attribute!r}, which is not listed"
                )
        return self
