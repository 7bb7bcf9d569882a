"""The AWS clients of an environment's data."""

from __future__ import annotations

from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients


def s3(descriptor: EnvironmentDescriptor) -> Any:
    """The client of S3 in the environment's region."""
    return clients.client("s3", descriptor.region)


def glue(descriptor: EnvironmentDescriptor) -> Any:
    """The client of Glue in the environment's region."""
    return clients.client("glue", descriptor.region)


def credentials(descriptor: EnvironmentDescriptor) -> Any:
    """The credentials of the clients, as they are now: `access_key`, `secret_key`, `token`.

    Raises:
        MlopsError: there are none.
    """
    found = clients.session(descriptor.region).get_credentials()
    if found is None:
        raise MlopsError("no AWS credentials were found", fix="sign in (aws sso login), or start the local target")
    return found.get_frozen_credentials()
