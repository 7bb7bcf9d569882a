"""Names of models, datasets, environments and columns."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import StringConstraints, TypeAdapter, ValidationError

from pipelines.declarations.errors import MlopsError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$")]
"""2 to 40 lower-case letters, digits and hyphens: valid in Kubernetes, IAM and S3."""

DatasetName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,50}[a-z0-9]$")]
"""Name of a dataset: that of its contract, or that of a model followed by `-predictions`."""

ColumnName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""Lower-case letters, digits and underscores: valid in Parquet, Glue, SQL and JSON."""


RunId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
"""Id of a training run: 1 to 63 lower-case letters, digits, dots and hyphens."""

Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
"""A git commit, by its full hash."""

Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
"""Timestamp in UTC to the second, `2026-01-31T12:00:00Z`."""

TagValue = Annotated[
    str, StringConstraints(pattern=r"^[\w.:/=+@-]([\w .:/=+@-]*[\w.:/=+@-])?$", min_length=1, max_length=256)
]
"""Value of an AWS tag: 1 to 256 letters, digits, spaces and `_.:/=+@-`, without spaces at the ends."""

ImageName = Literal["training", "serving"]
"""The container images of the project."""

_LONGEST_CRON_JOB = 52

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def checked_name(name: str, what: str = "model") -> str:
    """Return a name if it is valid, and so safe to use in a key or a path.

    Args:
        name: the name.
        what: what it names, for the error.

    Raises:
        MlopsError: the name is not valid.
    """
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise MlopsError(
            f"{name!r} is not a valid {what} name",
            fix="use 2 to 40 lower-case letters, digits and hyphens, starting with a letter",
        ) from None


def fitting(name: str, longest: int) -> str:
    """Return a name. One that is longer than allowed is cut, and ends in a digest of itself."""
    return name if len(name) <= longest else f"{name[: longest - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def bucket_name(project: str, environment: str, purpose: str, account: str) -> str:
    """Return the name of a bucket of an environment. The account id makes it globally unique."""
    return f"{project}-{environment}-{purpose}-{account}"


def database_name(project: str, environment: str) -> str:
    """Return the name of an environment's Glue database, where hyphens are not allowed."""
    return f"{project}-{environment}".replace("-", "_")


def repository_name(project: str, image: str) -> str:
    """Return the name of the ECR repository of an image. All environments of an account share it."""
    return f"{project}/{image}"


def table_name(dataset: str) -> str:
    """Return the name of a dataset's Glue table, where hyphens are not allowed."""
    return dataset.replace("-", "_")


def service_name(model: str, role: Literal["root", "ping", "pong", "shadow"]) -> str:
    """Return the name of a Kubernetes Service of a model's endpoint.

    Args:
        model: the model's name.
        role: `ping` and `pong` take turns: one selects the live pods, the other those on trial. `root` stands for both
            in the Ingress, and selects the pods of every release. `shadow` selects the pods that check a canary.
    """
    return f"{model}-{role}"


PREDICTIONS_SUFFIX = "-predictions"
"""End of the names of datasets of predictions. With it, the name of a model is a name of a dataset."""


def training_name(model: str) -> str:
    """Return the name of the workload that trains a model."""
    return f"train-{model}"


def monitor_name(dataset: str) -> str:
    """Return the name of the workload that monitors a dataset."""
    return f"monitor-{dataset}"


def maintenance_name(dataset: str) -> str:
    """Return the name of the workload that maintains a dataset's table, cut to the length that a CronJob may have."""
    return fitting(f"maintain-{dataset}", _LONGEST_CRON_JOB)


def model_monitor_name(model: str) -> str:
    """Return the name of the workload that monitors a model. A dataset may have the same name as a model."""
    return f"observe-{model}"


def compaction_name(model: str) -> str:
    """Return the name of the workload that compacts a model's inference log."""
    return f"compact-{model}"


def predictions_name(model: str) -> str:
    """Return the name of the dataset of a model's batch predictions."""
    return f"{model}{PREDICTIONS_SUFFIX}"


def prediction_job_name(model: str) -> str:
    """Return the name of the workload that predicts by batch."""
    return f"predict-{model}"


def serving_name(model: str) -> str:
    """Return the name of the workload that serves a model."""
    return f"serve-{model}"


def check_name(model: str) -> str:
    """Return the name of the workload, and of the AnalysisTemplate, that checks a model's canaries."""
    return f"check-{model}"


ROLLOUT_FIELD_MANAGER = "mlops"
"""Field manager of the Rollouts: the Pulumi program and the commands that move traffic apply them under this name."""
