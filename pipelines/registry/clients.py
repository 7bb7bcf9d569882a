"""The AWS clients of this process: making one takes as long as many calls with it. They may be used by many threads."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import boto3

_DECIDES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_ECR",
    "AWS_ENDPOINT_URL_GLUE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""The variables by which boto3 decides whom a client speaks to, and as whom: when one changes, so does the client."""


def client(service: str, region: str | None = None) -> Any:
    """The client of a service, configured by the standard SDK environment.

    Args:
        service: as boto3 names it.
        region: of AWS; the environment's unless given.
    """
    return _client(service, region, _settings())


def session(region: str | None = None) -> Any:
    """The session of the clients of a region."""
    return _session(region, _settings())


def _settings() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _DECIDES)


@cache
def _session(region: str | None, settings: tuple[str | None, ...]) -> Any:
    return boto3.Session(region_name=region)


@cache
def _client(service: str, region: str | None, settings: tuple[str | None, ...]) -> Any:
    return _session(region, settings).client(service)
