"""AWS clients, cached because creating one is slow. Clients are thread-safe."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from threading import RLock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import get_session
from botocore.utils import parse_timestamp

from pipelines.declarations.errors import MlopsError
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


AFTER_AN_OUTAGE = "run this again when https://health.aws.amazon.com says that the service works"
"""Fix for an outage of AWS."""

_OVERLOADED = ("InternalError", "KMSInternalException", "ServiceUnavailable", "SlowDown", "ThrottlingException")

_creating = RLock()
"""Held while a client is created: a session does not allow that in two threads."""

CONNECTIONS = 24
"""Number of connections to S3 that are kept open, and so of requests at once that need no new connection."""

_OFTEN_THROTTLED = ("ecr",)
"""Services whose quotas an account shares with every node that pulls: requests are repeated for up to a minute."""


def client(service: str, region: str | None = None) -> Any:
    """Return the client of a service, with the standard AWS configuration.

    Args:
        service: boto3's name of the service.
        region: AWS region; the configured one by default.
    """
    with _creating:
        return _client(service, region, _settings())


def session(region: str | None = None) -> Any:
    """Return the session that the clients of a region share."""
    return _session(region, _settings())


def _settings() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _VARIABLES)


@cache
def _session(region: str | None, settings: tuple[str | None, ...]) -> Any:
    core = get_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_timestamp)
    return boto3.Session(botocore_session=core, region_name=region)


def read_timestamp(value: Any) -> datetime:
    """Read a timestamp of an answer. botocore uses dateutil, which takes most of the time of a listing."""
    if isinstance(value, str):
        with suppress(ValueError):
            found = datetime.fromisoformat(value) if value[:4].isdecimal() else parsedate_to_datetime(value)
            if found.tzinfo is not None:
                return found
    parsed: datetime = parse_timestamp(value)
    return parsed


@cache
def _client(service: str, region: str | None, settings: tuple[str | None, ...]) -> Any:
    config = None
    if service in _OFTEN_THROTTLED:
        config = Config(retries={"mode": "standard", "total_max_attempts": 8})
    elif service == "s3":
        # Otherwise botocore makes the user agent twice for each request, an eighth of its CPU time.
        config = Config(max_pool_connections=CONNECTIONS, user_agent=f"Boto3/{boto3.__version__}")
    made = _session(region, settings).client(service, config=config)
    if service in ("kms", "s3"):
        made.meta.events.register(f"needs-retry.{service}", NewKeyRetries(creation_time(partial(client, "kms"))))
    return made


def is_outage(error: ClientError) -> bool:
    """Return whether a service could not answer, or not so many requests."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
    return int(status) >= 500 or code in _OVERLOADED


def refuse_wrong_clock(error: ClientError, what: str) -> None:
    """Raise an error if AWS refused a request because of its time; AWS accepts a difference of a few minutes.

    S3 and EC2 have error codes for it. The other services say in the message that the signature expired, or is not yet
    current.

    Args:
        error: the answer of AWS.
        what: the request, for the message.

    Raises:
        MlopsError: the clock of this machine is wrong.
    """
    code, message = (str(error.response.get("Error", {}).get(key, "")) for key in ("Code", "Message"))
    if code in ("RequestTimeTooSkewed", "RequestExpired") or message.startswith(
        ("Signature expired", "Signature not yet current")
    ):
        raise MlopsError(
            f"{what} was refused because of its time: expected the time of AWS, found {datetime.now(UTC):%H:%M:%S} UTC "
            "on this machine",
            fix="set the clock of this machine",
        ) from None
