"""The names of what the stack made, put together once: what it exports, and what each pod is told."""

from __future__ import annotations

from typing import Any

import pulumi

from infra.components.namespace import Namespace
from infra.components.registry import Registry
from infra.components.storage import Storage
from infra.environment import Environment
from pipelines.declarations.errors import MlopsError

Descriptor = dict[str, Any]


def describe(environment: Environment, storage: Storage, registry: Registry, namespace: Namespace) -> Descriptor:
    """The environment's descriptor, an `EnvironmentDescriptor` whose values may be outputs; without endpoints."""
    images = environment.config.images
    return {
        "format": "mlops/environment/v1",
        "name": environment.name,
        "promotes_from": environment.config.promotes_from,
        "region": environment.region,
        "account": environment.account,
        "landing_bucket": storage.landing.name,
        "lake_bucket": storage.lake.name,
        "logs_bucket": storage.logs.name,
        "registry_bucket": registry.bucket.name,
        "catalog_database": environment.catalog_database,
        "signing_key": registry.signing_key.arn,
        "trusted_keys": trusted_keys(environment, registry),
        "cluster": environment.config.cluster,
        "namespace": namespace.name,
        "images": {
            "training": registry.image("training", images.training),
            "serving": registry.image("serving", images.serving),
        },
        "repositories": {image: repository.repository_url for image, repository in registry.repositories.items()},
        "endpoints": {},
    }


def for_pods(descriptor: Descriptor, image: str) -> pulumi.Output[str]:
    """The descriptor as the JSON that a pod of an image gets.

    It names that image only: a new training image is no reason to roll every endpoint out again.
    """
    images = {name: reference if name == image else None for name, reference in descriptor["images"].items()}
    return pulumi.Output.json_dumps({**descriptor, "images": images}, sort_keys=True)


def trusted_keys(environment: Environment, registry: Registry) -> pulumi.Output[dict[str, str]]:
    """The public keys whose signatures count here: its own, and those of the environments before it."""
    before = environment.config.promotes_from
    own = pulumi.Output.all(**{environment.name: registry.public_key})
    if before is None:
        return own
    stack = pulumi.StackReference(f"{pulumi.get_organization()}/{pulumi.get_project()}/{before}")

    def merge(descriptor: Any, keys: dict[str, str]) -> dict[str, str]:
        if not isinstance(descriptor, dict):
            raise MlopsError(
                f"the stack {before!r} has no output `descriptor`, and {environment.name!r} trusts its key",
                fix=f"bring {before!r} up first",
            )
        return {**descriptor["trusted_keys"], **keys}

    return pulumi.Output.all(descriptor=stack.get_output("descriptor"), keys=own).apply(lambda both: merge(**both))
