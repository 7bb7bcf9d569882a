"""Kubernetes client with readable errors, and retries for reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError, ConfigError

from pipelines.declarations.errors import MlopsError

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""Time to retry a read while the API server is unavailable, for example during its upgrade."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts."""

_TEMPORARY = (None, 429, 500, 502, 503, 504)
"""HTTP statuses worth a retry; None means that there was no response."""


@contextmanager
def connect(namespace: str) -> Iterator[Client]:
    """Open a client for a namespace, and turn its errors in the block into `MlopsError`.

    Raises:
        MlopsError: the KUBECONFIG is missing or unusable, the cluster does not respond, or it rejects a request.
    """
    try:
        client = Client(namespace=namespace, field_manager="mlops")
    except ConfigError as error:
        raise MlopsError(f"no usable KUBECONFIG: {error}", fix="set KUBECONFIG") from None
    try:
        yield client
    except ApiError as error:
        raise MlopsError(f"the cluster rejected a request: {error.status.message or error.status.reason}") from None
    except httpx2.HTTPStatusError as error:  # from a proxy in front of the cluster
        raise MlopsError(f"the cluster cannot be reached: found status {error.response.status_code}") from None
    except httpx2.TransportError as error:
        raise MlopsError(
            f"the Kubernetes cluster does not respond: {error}", fix="check that it runs and that KUBECONFIG names it"
        ) from None
    finally:
        client.close()


def read_with_retry(call: Callable[[], T]) -> T:
    """Call `call` and return its result; retry while the cluster is unavailable or overloaded.

    Args:
        call: makes a request that only reads.

    Raises:
        ApiError, HTTPStatusError, TransportError: from the last attempt.
    """
    until, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
    while True:
        try:
            return call()
        except (ApiError, httpx2.HTTPStatusError, httpx2.TransportError) as error:
            if _status_of(error) not in _TEMPORARY or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _status_of(error: Exception) -> int | None:
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
