"""The AWS clients of this process: making one takes as long as many calls with it."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import boto3

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

_DECIDES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_GLUE",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SHARED_CREDENTIALS_FILE",
)
"""The variables by which boto3 decides whom a client speaks to, and as whom: when one changes, so does the client."""


def s3(descriptor: EnvironmentDescriptor) -> Any:
    """The client of S3 in the environment's region."""
    return _client("s3", descriptor.region, _settings())


def glue(descriptor: EnvironmentDescriptor) -> Any:
    """The client of Glue in the environment's region."""
    return _client("glue", descriptor.region, _settings())


def credentials(descriptor: EnvironmentDescriptor) -> Any:
    """The credentials of the clients, as they are now: `access_key`, `secret_key`, `token`.

    Raises:
        MlopsError: there are none.
    """
    found = _session(descriptor.region, _settings()).get_credentials()
    if found is None:
        raise MlopsError("no AWS credentials were found", fix="sign in (aws sso login), or start the local target")
    return found.get_frozen_credentials()


def _settings() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _DECIDES)


@cache
def _session(region: str, settings: tuple[str | None, ...]) -> Any:
    return boto3.Session(region_name=region)


@cache
def _client(service: str, region: str, settings: tuple[str | None, ...]) -> Any:
    return _session(region, settings).client(service)
