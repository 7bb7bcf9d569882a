"""The S3 client of this process."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor


def s3(descriptor: EnvironmentDescriptor) -> Any:
    """The client, for the environment's region; making one takes as long as several calls with it."""
    return _client(descriptor.region, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@cache
def _client(region: str, endpoint: str | None) -> Any:
    """One for each endpoint, which boto3 itself reads from the environment."""
    import boto3

    return boto3.client("s3", region_name=region)
