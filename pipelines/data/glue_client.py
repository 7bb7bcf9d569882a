"""AWS clients in the region of an environment."""

from __future__ import annotations

from typing import Any, Protocol

from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients


class InRegion(Protocol):
    """Something in an AWS region, such as an `EnvironmentDescriptor`."""

    @property
    def region(self) -> str:
        """AWS region."""


def s3(descriptor: InRegion) -> Any:
    """Return the S3 client of the environment's region."""
    return clients.client("s3", descriptor.region)


def glue(descriptor: InRegion) -> Any:
    """Return the Glue client of the environment's region."""
    return clients.client("glue", descriptor.region)


def credentials(descriptor: InRegion) -> Any:
    """Return the current credentials of the clients: `access_key`, `secret_key`, `token`.

    Raises:
        MlopsError: there are no AWS credentials.
    """
    found = clients.session(descriptor.region).get_credentials()
    if found is None:
        raise MlopsError(
            "no AWS credentials found", fix="sign in (aws sso login), or start the laptop (mlops laptop start)"
        )
    return found.get_frozen_credentials()
