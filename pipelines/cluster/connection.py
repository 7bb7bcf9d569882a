"""One connection to the cluster, and its failures in words."""

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
"""How long a cluster may be out of reach while something in it is followed: its API server may be replaced then."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries."""

_PASSING = (None, 429, 500, 502, 503, 504)
"""Statuses that say nothing of the request; None where there was no answer at all."""


@contextmanager
def connect(namespace: str) -> Iterator[Client]:
    """A client for `namespace`.

    Raises:
        MlopsError: there is no usable KUBECONFIG, the cluster does not answer, or it refuses a request.
    """
    try:
        client = Client(namespace=namespace, field_manager="mlops")
    except ConfigError as error:
        raise MlopsError(f"no connection to a Kubernetes cluster: {error}", fix="set KUBECONFIG") from None
    try:
        yield client
    except ApiError as error:
        raise MlopsError(f"the cluster refused: {error.status.message or error.status.reason}") from None
    except httpx2.HTTPStatusError as error:  # something between here and the cluster answered, not the cluster
        raise MlopsError(f"the cluster could not be asked: status {error.response.status_code}") from None
    except httpx2.TransportError as error:
        raise MlopsError(
            f"the Kubernetes cluster does not answer: {error}", fix="check that it runs and that KUBECONFIG names it"
        ) from None
    finally:
        client.close()


def ask(call: Callable[[], T]) -> T:
    """What a request that only reads gives, made again while the cluster does not answer or is overloaded.

    Args:
        call: makes the request.

    Raises:
        ApiError, HTTPStatusError, TransportError: of the last try.
    """
    until, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
    while True:
        try:
            return call()
        except (ApiError, httpx2.HTTPStatusError, httpx2.TransportError) as error:
            if _status_of(error) not in _PASSING or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _status_of(error: Exception) -> int | None:
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
