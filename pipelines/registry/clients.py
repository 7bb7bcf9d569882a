"""AWS clients, cached because creating one is slow. Clients are thread-safe."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

import boto3

from pipelines.registry.new_keys import NewKeyRetries, creation_time

_VARIABLES = (
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
"""Environment variables that select the endpoint and credentials of a client. Part of the cache key."""


def client(service: str, region: str | None = None) -> Any:
    """Return the client of a service, with the standard AWS configuration.

    Args:
        service: boto3's name of the service.
        region: AWS region; the configured one by default.
    """
    return _client(service, region, _settings())


def session(region: str | None = None) -> Any:
    """Return the session that the clients of a region share."""
    return _session(region, _settings())


def _settings() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _VARIABLES)


@cache
def _session(region: str | None, settings: tuple[str | None, ...]) -> Any:
    return boto3.Session(region_name=region)


@cache
def _client(service: str, region: str | None, settings: tuple[str | None, ...]) -> Any:
    made = _session(region, settings).client(service)
    if service in ("kms", "s3"):
        made.meta.events.register(f"needs-retry.{service}", NewKeyRetries(creation_time(partial(client, "kms"))))
    return made
