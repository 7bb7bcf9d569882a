"""Responses to the alarms of a model's monitor: `responses` in the section `monitoring` of model.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.declarations.documents import Declaration

Response = Literal["none", "ask", "retrain", "roll-back"]
"""What a check's alarm leads to: nothing, a question to people, a training, or a rollback."""


ActiveResponse = Literal["ask", "retrain", "roll-back"]
"""A response that does something."""


class Hysteresis(Declaration):
    """How often a check must be an alarm before there is a response.

    Attributes:
        alarms: number of windows in which the check was an alarm.
        of: number of newest windows that are looked at.
    """

    alarms: Annotated[int, Field(ge=1)] = 2
    of: Annotated[int, Field(ge=1, le=100)] = 3

    @model_validator(mode="after")
    def _can_be_met(self) -> Hysteresis:
        if self.alarms > self.of:
            raise ValueError(f"alarms to be at most `of`; found {self.alarms} and {self.of}")
        return self


class CheckResponses(Declaration):
    """The response to each check of a model's monitor."""

    traffic: Response = "ask"
    errors: Response = "roll-back"
    latency: Response = "ask"
    input_quality: Response = Field("ask", alias="input-quality")
    input_drift: Response = Field("ask", alias="input-drift")
    prediction_drift: Response = Field("ask", alias="prediction-drift")
    accuracy: Response = "roll-back"
    trial_accuracy: Response = Field("ask", alias="trial-accuracy")
    estimated_accuracy: Response = Field("ask", alias="estimated-accuracy")
    calibration: Response = "ask"
    fairness: Response = "ask"
    served_bundle: Response = Field("ask", alias="served-bundle")


class ModelResponses(Declaration):
    """Responses to the alarms of a model's monitor.

    Attributes:
        checks: check → response.
        hysteresis: how often a check must be an alarm first.
        cool_down_hours: hours after a response in which the same one is not repeated.
    """

    checks: CheckResponses = CheckResponses()
    hysteresis: Hysteresis = Hysteresis()
    cool_down_hours: Annotated[float, Field(ge=0, le=24 * 90, allow_inf_nan=False)] = 24.0

    def to(self, check: str) -> Response:
        """Return the response to a check; `none` for a check that no response is declared for."""
        found: Response = getattr(self.checks, check.replace("-", "_"), "none")
        return found
