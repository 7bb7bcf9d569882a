"""Check that a deployment may read what its environment promotes from."""

from __future__ import annotations

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import store

_PROBE = "bundles/probe"
"""A key that is never written. S3 says so to callers who may read and list; it denies the request of others."""


def check_predecessor_access(previous: EnvironmentDescriptor, environment: str) -> None:
    """Check that the bundles of the previous environment can be read.

    Bootstrap gives the role of an environment this right for the one that it promotes from. Without the check, the
    gates would refuse the next release for facts that they cannot read.

    Raises:
        MlopsError: they cannot be read.
    """
    try:
        store.get(previous.registry_bucket, _PROBE, limit=1)
    except store.NotFoundError:
        return
    except store.AccessDeniedError as error:
        raise MlopsError(
            f"{environment} promotes from {previous.name}, but may not read its bundles: {error.what}",
            fix=f"run bootstrap again, which gives the role of {environment} this right: docs/bootstrap.md#later. Then "
            "run the workflow deploy",
        ) from None
