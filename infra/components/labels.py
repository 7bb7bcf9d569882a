"""Labels and annotations of Kubernetes objects."""

from __future__ import annotations

from infra.scopes import PLATFORM, Environment
from pipelines.declarations.model import Model


def selector(workload: str) -> dict[str, str]:
    """Return the labels that select the pods of a workload."""
    return {"app.kubernetes.io/name": workload}


def labels(environment: Environment, workload: str, model: Model | None) -> dict[str, str]:
    """Return the labels of a workload's objects."""
    return {
        **selector(workload),
        "app.kubernetes.io/part-of": environment.project,
        "app.kubernetes.io/managed-by": "pulumi",
        "mlops/environment": environment.name,
        "mlops/model": model.name if model else PLATFORM,
    }


def owner_annotations(environment: Environment, model: Model | None) -> dict[str, str]:
    """Return the annotations of a workload's objects: the tags whose text a label could not hold."""
    tags = environment.tags(model)
    return {"mlops/owner": tags["owner"], "mlops/cost-centre": tags["cost-centre"]}


def metadata(environment: Environment, workload: str, model: Model | None) -> dict[str, dict[str, str]]:
    """Return the labels and annotations of a workload's objects as Kubernetes metadata."""
    return {"labels": labels(environment, workload, model), "annotations": owner_annotations(environment, model)}
