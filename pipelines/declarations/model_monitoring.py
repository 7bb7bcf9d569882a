"""Settings of a model's monitor: `monitoring` in `model.yaml`."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from pipelines.declarations.data_monitoring import MONITOR_HOUR
from pipelines.declarations.documents import Declaration
from pipelines.declarations.model_responses import ModelResponses
from pipelines.declarations.names import ColumnName, Name

ModelCheck = Literal[
    "traffic",
    "errors",
    "latency",
    "input-quality",
    "input-drift",
    "prediction-drift",
    "accuracy",
    "trial-accuracy",
    "estimated-accuracy",
    "calibration",
    "fairness",
    "served-bundle",
]
"""What the monitor of a model checks."""

MODEL_CHECKS: tuple[ModelCheck, ...] = get_args(ModelCheck)

MODEL_DIMENSION = "Model"
"""CloudWatch dimension of a model monitor's metrics."""

DAY_HOURS = 24

_SUB_DAILY_SILENCE_HOURS = 3
_DAILY_SILENCE_HOURS = 26


class LabelSource(Declaration):
    """Where the true values of predictions arrive: a dataset with a contract, joined by the id of the request.

    Attributes:
        dataset: name of the contract.
        id: column with the id of the request, as the client sent or received it.
        label: column with the true value; the model's target by default.
        row: column with the number of the row in its request, from 0; None if each request has one row.
        time: column with the time at which the value became known; of two values, the later one counts. None if there
            is no such column; then contradicting values are left out.
        delay_days: days after a request in which its label may arrive. Accuracy is restated for that long.
    """

    dataset: Name
    id: ColumnName = "id"
    label: ColumnName | None = None
    row: ColumnName | None = None
    time: ColumnName | None = None
    delay_days: Annotated[int, Field(ge=0, le=365)] = 30


class ModelMonitoring(Declaration):
    """How a model is monitored, in each environment that has a release of it.

    Attributes:
        enabled: False for no monitor.
        window_hours: hours before a run whose requests are judged. With less than 24, the monitor runs hourly.
        minimum_rows: predicted rows, or labelled rows, without which a check is unknown.
        minimum_effect: least share of rows that must have moved to another part of a distribution before a significant
            difference is an alarm.
        maximum_loss: greatest loss of the champion's metric against the holdout, as a share of its value there (0.1
            allows 10 %).
        checks: the checks to make; all by default.
        ignored_features: features whose drift is not checked, such as a number that counts up.
        labels: where true values arrive; None if they never do.
        responses: what an alarm of a check leads to.
    """

    enabled: bool = True
    window_hours: Annotated[int, Field(ge=1, le=24 * 31)] = DAY_HOURS
    minimum_rows: Annotated[int, Field(ge=30)] = 200
    minimum_effect: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.04
    maximum_loss: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    checks: Annotated[tuple[ModelCheck, ...], Field(min_length=1)] = MODEL_CHECKS
    ignored_features: tuple[ColumnName, ...] = ()
    labels: LabelSource | None = None
    responses: ModelResponses = ModelResponses()

    @model_validator(mode="after")
    def _names_each_check_once(self) -> ModelMonitoring:
        if len(set(self.checks)) != len(self.checks):
            raise ValueError(f"each check once; found {', '.join(self.checks)}")
        return self

    @property
    def is_daily(self) -> bool:
        """True if the monitor runs once a day, False if it runs hourly."""
        return self.window_hours >= DAY_HOURS

    @property
    def longest_silence_hours(self) -> int:
        """Hours without a run after which the monitor counts as dead."""
        return _DAILY_SILENCE_HOURS if self.is_daily else _SUB_DAILY_SILENCE_HOURS


def model_monitor_schedule(model: str, settings: ModelMonitoring) -> str:
    """Return when to monitor a model, as a cron expression in UTC: daily, or hourly if its window is shorter.

    The minute depends on the model's name, so that the jobs of many models do not start together.
    """
    return _schedule("observe", model, MONITOR_HOUR, settings)


def log_compaction_schedule(model: str, settings: ModelMonitoring) -> str:
    """Return when to compact the inference log of a model: as often as the monitor runs, and an hour before it."""
    return _schedule("compact", model, MONITOR_HOUR - 1, settings)


def _schedule(job: str, model: str, hour: int, settings: ModelMonitoring) -> str:
    minute = int(hashlib.sha256(f"{job} {model}".encode()).hexdigest(), 16) % 60
    return f"{minute} {hour} * * *" if settings.is_daily else f"{minute} * * * *"
