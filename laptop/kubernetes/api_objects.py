"""Objects of the Kubernetes API as plain dicts, read and written with lightkube."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laptop.cluster.kinds import Kind
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from lightkube import Client

Object = dict[str, Any]

FIELD_MANAGER = "pulumi-kubernetes"
"""Name under which changes are made: that of Pulumi's own provider when it does not apply on the server."""

TIMEOUT_SECONDS = 30.0
"""Maximum time for one request."""

MOST_WAITS, WAIT_SECONDS = 10, 1.0
"""How often, and after which time, a change is sent again that the API has no time for."""


class NoAnswerError(MlopsError):
    """The API did not answer. It may have made the change nevertheless."""


class ApiObjects:
    """Objects in the cluster of a kubeconfig. Thread-safe.

    Methods raise `lightkube.core.exceptions.ApiError` if the API refuses a request, and `NoAnswerError` if it does not
    answer.

    Args:
        kubeconfig: its current context is used; read at the first request.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._client: Client | None = None
        self._lock = threading.Lock()

    def create(self, kind: Kind, namespace: str, name: str, manifest: Object, *, adopt: bool) -> None:
        """Create an object; with `adopt`, patch an existing one instead of failing."""
        from lightkube.core.exceptions import ApiError

        try:
            self._send("create", _resource(kind)(manifest), namespace=namespace or None, field_manager=FIELD_MANAGER)
        except ApiError as error:
            if error.status.reason != "AlreadyExists" or not adopt:
                raise
            self.patch(kind, namespace, name, manifest)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        from lightkube.core.exceptions import ApiError

        try:
            return dict(self._send("get", _resource(kind), name, **_in(kind, namespace)))
        except ApiError as error:
            if error.status.code == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str) -> list[Object]:
        """Return the objects of a kind in a namespace."""
        return [dict(item) for item in self._send("list", _resource(kind), **_in(kind, namespace))]

    def patch(self, kind: Kind, namespace: str, name: str, patch: Object) -> None:
        """Apply a JSON merge patch to an object."""
        from lightkube.types import PatchType

        options = {"patch_type": PatchType.MERGE, "field_manager": FIELD_MANAGER, **_in(kind, namespace)}
        self._send("patch", _resource(kind), name, patch, **options)

    def apply(self, kind: Kind, namespace: str, name: str, manifest: Object, manager: str) -> None:
        """Apply a manifest on the server: the manager then owns its fields, and loses those that it no longer has."""
        from lightkube.types import PatchType

        options = {"patch_type": PatchType.APPLY, "field_manager": manager, **_in(kind, namespace)}
        self._send("patch", _resource(kind), name, manifest, **options)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object after its dependents. A missing object is not an error."""
        from lightkube.core.exceptions import ApiError
        from lightkube.types import CascadeType

        try:
            self._send("delete", _resource(kind), name, cascade=CascadeType.FOREGROUND, **_in(kind, namespace))
        except ApiError as error:
            if error.status.code != 404:
                raise

    def _send(self, method: str, *args: Any, **options: Any) -> Any:
        """Send a request, and repeat it where the client of Pulumi's own provider does.

        Reads are repeated while the API is unavailable, and changes while it asks to wait (429).
        """
        import httpx2

        from pipelines.cluster.connection import read_with_retry

        client = self._connected()

        def call() -> Any:
            answer = getattr(client, method)(*args, **options)
            return list(answer) if method == "list" else answer

        try:
            return read_with_retry(call) if method in ("get", "list") else _until_not_busy(call)
        except httpx2.TransportError as error:
            raise NoAnswerError(
                f"the cluster does not answer: {error}",
                fix="check that the laptop is running: mlops laptop status. Then run it again.",
            ) from error

    def _connected(self) -> Client:
        import httpx2
        from lightkube import Client, KubeConfig
        from lightkube.core.exceptions import ConfigError

        with self._lock:
            if self._client is None:
                try:
                    config = KubeConfig.from_file(self._kubeconfig)
                    self._client = Client(config=config, timeout=httpx2.Timeout(TIMEOUT_SECONDS), trust_env=False)
                except (ConfigError, OSError, ValueError) as error:
                    raise MlopsError(
                        f"cannot use the kubeconfig {self._kubeconfig}: {error}",
                        fix="start the laptop: mlops laptop start.",
                    ) from error
            return self._client


def _in(kind: Kind, namespace: str) -> dict[str, str]:
    return {"namespace": namespace} if kind.namespaced else {}


@cache
def _resource(kind: Kind) -> Any:
    """Return a lightkube resource class that keeps an object as a dict.

    It is not registered with lightkube, whose registry has one class per kind: the typed one.
    """
    from lightkube.generic_resource import GenericGlobalResource, GenericNamespacedResource, create_api_info

    from pipelines.cluster.decoders import make_decoders

    base = GenericNamespacedResource if kind.namespaced else GenericGlobalResource
    api = create_api_info(kind.group, kind.version, kind.name, kind.plural)
    resource = type(kind.name, (base,), {"_api_info": api})
    make_decoders(resource)
    return resource


def _until_not_busy(call: Callable[[], Any]) -> Any:
    """Call `call` again while the API answers that it has too many requests, which it did not look at."""
    from lightkube.core.exceptions import ApiError

    for waits in range(MOST_WAITS + 1):
        try:
            return call()
        except ApiError as error:
            if error.status.code != 429 or waits == MOST_WAITS:
                raise
        time.sleep(WAIT_SECONDS)
    raise AssertionError("the last attempt returns or raises")
