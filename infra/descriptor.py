"""The environment's descriptor: exported by the stack and passed to every pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.components.namespace import Namespace
from infra.components.registry import Registry
from infra.components.storage import Storage
from infra.mistakes import reported
from infra.scopes import Environment
from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Repositories
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ImageName

Descriptor = pulumi.Output[EnvironmentDescriptor]


def describe(environment: Environment, storage: Storage, registry: Registry, namespace: Namespace) -> Descriptor:
    """Return the environment's descriptor, without endpoints.

    Raises:
        MlopsError: the environment that this one promotes from is not up.
    """

    def build(known: Mapping[str, Any]) -> EnvironmentDescriptor:
        return EnvironmentDescriptor(
            name=environment.name,
            promotes_from=environment.config.promotes_from,
            region=environment.region,
            account=environment.account,
            landing_bucket=storage.landing.name,
            lake_bucket=storage.lake.name,
            logs_bucket=storage.logs.name,
            registry_bucket=registry.bucket.name,
            catalog_database=environment.catalog_database,
            signing_key=environment.arn("kms", f"key/{known['signing_key_id']}"),
            trusted_keys={**known["earlier_keys"], environment.name: known["public_key"]},
            cluster=environment.config.cluster,
            namespace=known["namespace"],
            images=ImageReferences(
                training=environment.image_reference("training"), serving=environment.image_reference("serving")
            ),
            repositories=Repositories(
                training=environment.image_repository("training"), serving=environment.image_repository("serving")
            ),
        )

    known = pulumi.Output.all(
        signing_key_id=registry.signing_key.key_id,
        public_key=registry.public_key,
        earlier_keys=_earlier_keys(environment),
        namespace=namespace.name,
    )
    return known.apply(build)


def pod_descriptor(descriptor: Descriptor, image: ImageName) -> pulumi.Output[str]:
    """Return the descriptor as JSON for the pods of one image.

    It names only that image, so that a new training image does not restart every endpoint.
    """

    def encode(known: EnvironmentDescriptor) -> str:
        own = ImageReferences.model_validate({image: getattr(known.images, image)})
        return json.dumps(known.model_copy(update={"images": own}).model_dump(mode="json"), sort_keys=True)

    return descriptor.apply(encode)


def exported(
    descriptor: Descriptor, endpoints: Mapping[str, pulumi.Output[str | None]]
) -> pulumi.Output[dict[str, Any]]:
    """Return the descriptor with the URLs of its endpoints as a stack output.

    Args:
        descriptor: the descriptor without endpoints.
        endpoints: model → URL; None while the endpoint has no address.
    """

    def encode(known: Mapping[str, Any]) -> dict[str, Any]:
        urls = {model: url for model, url in known["endpoints"].items() if url}
        complete: EnvironmentDescriptor = known["descriptor"].model_copy(update={"endpoints": urls})
        return complete.model_dump(mode="json")

    return pulumi.Output.all(descriptor=descriptor, endpoints=pulumi.Output.from_input(dict(endpoints))).apply(encode)


def _earlier_keys(environment: Environment) -> pulumi.Output[dict[str, str]]:
    """Return the public keys that the environment before this one trusts: its own and those before it."""
    before = environment.config.promotes_from
    if before is None:
        return pulumi.Output.from_input({})
    stack = pulumi.StackReference(f"{pulumi.get_organization()}/{pulumi.get_project()}/{before}")

    @reported()
    def read(descriptor: Any) -> dict[str, str]:
        if not isinstance(descriptor, dict):
            raise MlopsError(
                f"{environment.name!r} trusts the signing key of {before!r}, but the stack {before!r} has no output "
                "`descriptor`",
                fix=f"mlops up --env {before}",
            )
        keys: dict[str, str] = descriptor["trusted_keys"]
        return keys

    return stack.get_output("descriptor").apply(read)
