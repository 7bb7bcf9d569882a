"""Credentials of pods: EKS Pod Identity adds them when a pod is created, and never later."""

from __future__ import annotations

from lightkube.resources.core_v1 import Pod

VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
"""Environment variable that EKS Pod Identity adds to every container of a pod whose service account has a role."""


def has_credentials(pod: Pod) -> bool:
    """Return whether EKS Pod Identity gave a pod a role when it was created."""
    containers = pod.spec.containers if pod.spec else []
    return any(variable.name == VARIABLE for container in containers for variable in container.env or ())
