"""What Kubernetes objects carry besides their name: labels to select them by, and who answers for them."""

from __future__ import annotations

from infra.environment import PLATFORM, Environment
from pipelines.declarations.model import Model


def selector(workload: str) -> dict[str, str]:
    """The label by which the pods of a workload are found."""
    return {"app.kubernetes.io/name": workload}


def labels(environment: Environment, workload: str, model: Model | None) -> dict[str, str]:
    """The labels of everything that belongs to a workload."""
    return {
        **selector(workload),
        "app.kubernetes.io/part-of": environment.project,
        "app.kubernetes.io/managed-by": "pulumi",
        "mlops/environment": environment.name,
        "mlops/model": model.name if model else PLATFORM,
    }


def ownership(environment: Environment, model: Model | None) -> dict[str, str]:
    """The annotations of everything that belongs to a workload: tags that may be any text, as no label may."""
    tags = environment.tags(model)
    return {"mlops/owner": tags["owner"], "mlops/cost-centre": tags["cost-centre"]}
