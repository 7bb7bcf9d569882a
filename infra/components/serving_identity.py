"""The identities of a model's endpoint and of its canary check.

EKS Pod Identity gives a pod its role when the pod is created, and only if the association is effective by then. So the
identities of every declared model exist from the first `up` on, before a release creates pods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.components.grants import read_prefix, write_matching
from infra.components.labels import selector
from infra.components.registry import Registry
from infra.components.serving import PORT
from infra.components.storage import Storage
from infra.components.workload import Workload, WorkloadArgs, all_pods_of, egress_to
from infra.scopes import Environment
from pipelines.declarations.environment import Prometheus, service_namespace
from pipelines.declarations.model import Model
from pipelines.declarations.names import check_name, serving_name


@dataclass(frozen=True, kw_only=True)
class ServingIdentityArgs:
    """Arguments of `ServingIdentity`.

    Attributes:
        environment: the environment that the model is served in.
        model: the model to serve.
        storage: receives the inference logs.
        registry: holds the bundles.
        namespace: the Kubernetes namespace.
    """

    environment: Environment
    model: Model
    storage: Storage
    registry: Registry
    namespace: pulumi.Input[str]


class ServingIdentity(pulumi.ComponentResource):
    """The identities of the pods that serve a model, and of the job that checks its canaries.

    Attributes:
        associations: give the pods of both their roles.
    """

    def __init__(self, name: str, args: ServingIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:serving:ServingIdentity", name, None, opts)
        environment, model = args.environment, args.model
        serving, check = serving_name(model.name), check_name(model.name)
        # Both belonged to the endpoint once. Without the aliases they would be replaced under the same physical names.
        endpoint = pulumi.create_urn(name, "mlops:serving:Endpoint")
        canary = pulumi.create_urn(name, "mlops:serving:CanaryCheck", endpoint)
        # An ALB with IP targets connects from its own addresses in its subnets.
        load_balancers = [{"ipBlock": {"cidr": cidr}} for cidr in environment.config.load_balancer_cidrs]
        port = {"protocol": "TCP", "port": PORT}
        copies = model.serving.shadow is not None
        servers, checks = (
            [{"podSelector": {"matchLabels": selector(name)}}] if copies else [] for name in (serving, check)
        )
        prometheus = environment.config.monitoring.prometheus
        scraper = (
            (prometheus.scraper_namespace or service_namespace(prometheus.url)) if prometheus is not None else None
        )
        server = Workload(
            serving,
            WorkloadArgs(
                environment=environment,
                namespace=args.namespace,
                statements=[
                    *read_prefix(args.registry.bucket, f"bundles/{model.name}/", f"evidence/{model.name}/"),
                    # No Parquet files: they say which objects of the log a reader leaves out.
                    *write_matching(
                        args.storage.logs, f"inference/{model.name}/*.jsonl", f"inference/{model.name}/counts/*.json"
                    ),
                ],
                model=model,
                ingress=[
                    {
                        "from": [
                            *load_balancers,
                            {"podSelector": {"matchLabels": selector(check)}},
                            *([all_pods_of(scraper)] if scraper is not None else ()),
                            *servers,
                        ],
                        "ports": [port],
                    }
                ],
                # Copies of requests go to the pods of another release; the check says to which.
                egress=[{"to": [*servers, *checks], "ports": [port]}] if copies else [],
            ),
            self._child(endpoint),
        )
        checker = Workload(
            check,
            WorkloadArgs(
                environment=environment,
                namespace=args.namespace,
                statements=read_prefix(args.registry.bucket, f"bundles/{model.name}/"),
                model=model,
                ingress=[{"from": servers, "ports": [port]}] if copies else [],
                egress=[
                    {"to": [{"podSelector": {"matchLabels": selector(serving)}}], "ports": [port]},
                    *prometheus_egress(prometheus),
                ],
            ),
            self._child(canary),
        )
        self.associations = (server.association, checker.association)
        self.register_outputs({})

    def _child(self, former_parent: pulumi.Output[str]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, aliases=[pulumi.Alias(parent=former_parent)])


def prometheus_egress(prometheus: Prometheus | None) -> list[dict[str, Any]]:
    """Return the egress rules of a check that reads Prometheus."""
    return egress_to(prometheus.url, prometheus.pod_port) if prometheus is not None else []
