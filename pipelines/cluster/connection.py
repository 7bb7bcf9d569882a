"""One connection to the cluster, and its failures in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError, ConfigError

from pipelines.declarations.errors import MlopsError


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
    except httpx2.TransportError as error:
        raise MlopsError(
            f"the Kubernetes cluster does not answer: {error}", fix="check that it runs and that KUBECONFIG names it"
        ) from None
    finally:
        client.close()
