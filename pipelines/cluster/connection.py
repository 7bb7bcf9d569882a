"""Kubernetes client with readable errors, and retries for reads."""

from __future__ import annotations

import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import httpx2
from lightkube import Client, KubeConfig
from lightkube.config import client_adapter
from lightkube.config.models import UserExec
from lightkube.core.exceptions import ApiError, ConfigError

from pipelines.cluster.decoders import make_decoders
from pipelines.declarations.errors import MlopsError

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""Time to retry a read while the API server is unavailable, for example during its upgrade."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts."""

_TEMPORARY = (None, 429, 500, 502, 503, 504)
"""HTTP statuses worth a retry; None means that there was no response."""

RENEWAL_SECONDS = 15.0
"""Time to retry a read whose credentials were accepted before: they may have expired, and are renewed by a plugin."""

_PLUGIN_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_keeping = threading.Lock()
_keepers = 0  # blocks of `keep_connected` that have not ended
_kept: dict[tuple[str, str], Client] = {}  # namespace and KUBECONFIG → client
_accepted = threading.Event()
"""Set once the cluster has accepted the credentials of this process."""

SIGN_IN = "sign in again so that `kubectl auth whoami` answers; in a workflow, run it again"
"""Fix for credentials that the cluster refuses."""


@contextmanager
def keep_connected() -> Iterator[None]:
    """Let all uses of `connect` in the block share a client, in every thread, instead of opening one each.

    On EKS, a new client runs the credential plugin, which takes as long as several requests. The clients are closed at
    the end of the last block.
    """
    global _keepers
    with _keeping:
        _keepers += 1
    try:
        yield
    finally:
        with _keeping:
            _keepers -= 1
            unused = [] if _keepers else list(_kept.values())
            if not _keepers:
                _kept.clear()
        for client in unused:
            client.close()


@contextmanager
def connect(namespace: str) -> Iterator[Client]:
    """Open a client for a namespace, and turn its errors in the block into `MlopsError`.

    In a block of `keep_connected`, the client is shared and stays open.

    Raises:
        MlopsError: the KUBECONFIG or its credential plugin is missing or unusable, the cluster does not respond, or it
            rejects a request.
    """
    client, is_shared = _client(namespace)
    try:
        yield client
    except ApiError as error:
        raise _rejection(error) from None
    except httpx2.HTTPStatusError as error:  # from a proxy in front of the cluster
        raise MlopsError(f"the cluster cannot be reached: found status {error.response.status_code}") from None
    except httpx2.TransportError as error:
        raise MlopsError(
            f"the Kubernetes cluster does not respond: {error}", fix="check that it runs and that KUBECONFIG names it"
        ) from None
    except (ConfigError, OSError, ValueError, LookupError, TypeError) as error:
        if not _comes_from_sign_in(error):
            raise
        raise MlopsError(
            f"the credential plugin of KUBECONFIG failed: {str(error).strip() or type(error).__name__}", fix=SIGN_IN
        ) from None
    finally:
        if not is_shared:
            client.close()


def _client(namespace: str) -> tuple[Client, bool]:
    """Return a client, and whether it stays open after its use."""
    key = (namespace, os.environ.get("KUBECONFIG", ""))
    with _keeping:
        if not _keepers:
            return _open(namespace), False
        if key not in _kept:
            _kept[key] = _open(namespace)
        return _kept[key], True


def _open(namespace: str) -> Client:
    try:
        config = KubeConfig.from_env().get()
        plugin = config.user.exec if config is not None and config.user else None
        if plugin is not None:
            _check_plugin(plugin)
        make_decoders()
        return Client(config=config, namespace=namespace, field_manager="mlops")
    except ConfigError as error:
        raise MlopsError(f"no usable KUBECONFIG: {error}", fix="set KUBECONFIG") from None


def _check_plugin(plugin: UserExec) -> None:
    """Check that a credential plugin can be run, and select a version of its protocol that lightkube knows.

    Raises:
        MlopsError: the command is not found, or the version is not known.
    """
    if plugin.apiVersion not in _PLUGIN_VERSIONS:
        raise MlopsError(
            f"apiVersion of the credential plugin of KUBECONFIG: expected one of {', '.join(_PLUGIN_VERSIONS)}, "
            f"found {plugin.apiVersion!r}",
            fix="write KUBECONFIG again: aws eks update-kubeconfig --name <cluster>",
        )
    if plugin.command is None or shutil.which(plugin.command) is None:
        raise MlopsError(
            f"the credential plugin of KUBECONFIG is not on the PATH: {plugin.command!r}",
            fix=f"install {plugin.command}, or write KUBECONFIG again: aws eks update-kubeconfig --name <cluster>",
        )
    plugin.apiVersion = _PLUGIN_VERSIONS[1]  # v1 returns the same fields, but lightkube refuses its name


def _comes_from_sign_in(error: BaseException) -> bool:
    """Return whether an error was raised while lightkube obtained credentials."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == client_adapter.__name__ for frame, _ in frames)


def _rejection(error: ApiError) -> MlopsError:
    """Return a readable error for an answer of the API server."""
    message = error.status.message or error.status.reason
    if error.status.code == httpx2.codes.UNAUTHORIZED:
        return MlopsError(f"the cluster does not accept your credentials: {message}", fix=SIGN_IN)
    if error.status.code == httpx2.codes.FORBIDDEN:
        return MlopsError(
            f"the cluster rejected a request: {message}",
            fix="give this permission to the role you use: docs/bootstrap.md lists what it needs",
        )
    if error.status.code == httpx2.codes.TOO_MANY_REQUESTS:
        return MlopsError(f"the cluster is overloaded: {message}", fix="try again later")
    return MlopsError(f"the cluster rejected a request: {message}")


def read_with_retry(call: Callable[[], T], *, outage_seconds: float | None = None) -> T:
    """Call `call` and return its result; retry while the cluster is unavailable or overloaded.

    The pause grows, and is at least what the cluster asks for (`Retry-After`). Credentials that were accepted before
    may have expired, so they get a shorter time to be renewed.

    Args:
        call: makes a request that only reads.
        outage_seconds: how long to retry while the cluster is unavailable; `PATIENCE_SECONDS` if None.

    Raises:
        ApiError, HTTPStatusError, TransportError: from the last attempt.
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    outage = PATIENCE_SECONDS if outage_seconds is None else outage_seconds
    while True:
        try:
            answer = call()
            _accepted.set()
            return answer
        except (ApiError, httpx2.HTTPStatusError, httpx2.TransportError) as error:
            wait = max(pause, _retry_after(error))
            expired = _status_of(error) == httpx2.codes.UNAUTHORIZED and _accepted.is_set()
            patience = RENEWAL_SECONDS if expired else outage if is_temporary(error) else 0.0
            if time.monotonic() + wait > began + patience:
                raise
        time.sleep(wait)
        pause = min(pause * 2, LONGEST_PAUSE)


def write_with_retry(call: Callable[[], T]) -> T:
    """Call `call` and return its result; retry while the cluster is unavailable or overloaded.

    A write whose answer was lost is repeated, so the caller must expect to be told that it was done already.

    Args:
        call: makes a request that may be made twice: it is conditional, or creates an object of a unique name.

    Raises:
        ApiError, HTTPStatusError, TransportError: from the last attempt.
    """
    return read_with_retry(call)


def is_temporary(error: Exception) -> bool:
    """Return whether a request that failed is worth a retry."""
    return _status_of(error) in _TEMPORARY


def _retry_after(error: Exception) -> float:
    """Return the seconds after which the cluster wants to be asked again; 0 if it does not say."""
    response = getattr(error, "response", None)
    with suppress(ValueError):
        return max(0.0, float(response.headers.get("Retry-After", ""))) if response is not None else 0.0
    return 0.0


def _status_of(error: Exception) -> int | None:
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
