"""Settings shared by the objects that serve one model."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.scopes import Environment
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.declarations.model import Model

PORT = 8080
"""Port of the serving pods."""

SERVICE_PORT = 80
"""Port of the Services, and of a load balancer without a certificate; omitted from URLs."""


@dataclass(frozen=True, kw_only=True)
class ServingContext:
    """The settings that an endpoint and its canary check share.

    Attributes:
        environment: the environment that the model is served in.
        model: the model to serve.
        log_policy: what its inference log holds.
        identity: the identities of the endpoint's pods and of its check, once pods may start.
        namespace: the Kubernetes namespace.
        image: reference of the serving image by digest.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    model: Model
    log_policy: LogPolicy
    identity: pulumi.Input[pulumi.Resource]
    namespace: pulumi.Input[str]
    image: str
    descriptor: pulumi.Input[str]

    def service_url(self, service: str) -> str:
        """Return the URL of a Service by cluster DNS."""
        return f"http://{service}.{self.environment.config.namespace}.svc"
