"""The names people choose: models, datasets, environments, columns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$")]
"""Lower-case letters, digits and hyphens, 2 to 40 characters: fits Kubernetes names, IAM roles and S3 prefixes."""

ColumnName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""Lower-case letters, digits and underscores: the same in Parquet, Glue, SQL and JSON."""


ImageName = Literal["training", "serving"]
"""The container images of the project."""


def repository_name(project: str, image: str) -> str:
    """Return the name of the ECR repository of an image. All environments of an account share it."""
    return f"{project}/{image}"


def table_name(dataset: str) -> str:
    """The Glue table of a dataset: Glue and SQL take no hyphens."""
    return dataset.replace("-", "_")


def service_name(model: str, role: Literal["stable", "canary"]) -> str:
    """The Kubernetes Service of a model's endpoint: before the pods that are trusted, or before those on trial."""
    return f"{model}-{role}"
