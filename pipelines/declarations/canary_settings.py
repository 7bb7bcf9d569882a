"""Settings of a canary check: what the program tells the Jobs that check a canary, in an environment variable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import Prometheus
from pipelines.declarations.model import PREDICTION_DISTANCE

SETTINGS_VARIABLE = "CHECK_SETTINGS"
"""Environment variable that holds the settings, as JSON."""

SECONDS_VARIABLE = "CHECK_SECONDS"
"""Environment variable that holds the least duration of a check, in seconds; each traffic step sets it."""

AUTHORIZATION_VARIABLE = "CHECK_PROMETHEUS_AUTHORIZATION"
"""Environment variable with the header `Authorization` for Prometheus, from a Secret."""


class CanaryBounds(Declaration):
    """Bounds that a model declares for its canaries.

    Attributes:
        error_rate: share of requests that may end in an error (`gates.soak.maximum_error_rate`).
        p99_ms: latency of 99 % of the requests, in milliseconds (`gates.latency.p99_ms`).
        error_increase: increase of the error rate that must be found before a canary may pass.
        prediction_shift: allowed change of the mean prediction, in standard deviations of the live predictions.
        prediction_distance: allowed distance between the distributions of predictions, apart from a shift of all of
            them, in standard deviations of the live predictions.
    """

    error_rate: Annotated[float, Field(ge=0, lt=1)]
    p99_ms: Annotated[float, Field(gt=0)]
    error_increase: Annotated[float, Field(gt=0, lt=1)]
    prediction_shift: Annotated[float, Field(gt=0)]
    prediction_distance: Annotated[float, Field(gt=0)] = PREDICTION_DISTANCE


class CanarySettings(Declaration):
    """Settings of a canary check.

    Attributes:
        fail_if: outcome for which the exit status is not 0.
        golden_only: True to end once the golden requests are answered.
        wait_seconds: seconds to wait for a verdict after the declared duration of the step.
        bounds: what the canary must keep.
        prometheus: where the counts are read; None for the pods.
    """

    fail_if: Literal["failed", "inconclusive"]
    golden_only: bool = False
    wait_seconds: Annotated[int, Field(ge=0)] = 0
    bounds: CanaryBounds
    prometheus: Prometheus | None = None

    def to_variable(self) -> str:
        """Return the value of the environment variable.

        Serving images refuse settings that they do not know. So what was added later is left out if it is not set.
        """
        is_default = self.bounds.prediction_distance == PREDICTION_DISTANCE
        left_out = {"bounds": {"prediction_distance"}} if is_default else None
        return self.model_dump_json(exclude_none=True, exclude=left_out)
