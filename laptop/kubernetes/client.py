"""The Kubernetes API over HTTP, as much of it as the provider needs. Safe for several threads."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import urllib3
import yaml

from pipelines.declarations.errors import MlopsError

Object = dict[str, Any]

_TIMEOUT = urllib3.Timeout(connect=3.0, read=30.0)  # seconds
_NO_RETRIES = urllib3.Retry(total=0)


class ApiError(Exception):
    """The API refused a request.

    Args:
        code: the HTTP status.
        reason: Kubernetes' machine-readable reason, such as `AlreadyExists`.
        message: a sentence for people.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        super().__init__(message)


class Client:
    """A connection to the cluster of a kubeconfig.

    Args:
        kubeconfig: its current context is used; it is read at the first request.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._pool: urllib3.PoolManager | None = None
        self._server = ""
        self._lock = threading.Lock()

    def get(self, path: str) -> Object | None:
        """The object at a path, or None when there is none."""
        try:
            return self.send("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def send(self, method: str, path: str, body: Object | None = None, *, type_: str = "application/json") -> Object:
        """Sends a request and gives the answer; raises ApiError when it is refused, MlopsError when none comes."""
        pool = self._connected()
        try:
            answer = pool.request(
                method,
                f"{self._server}{path}",
                body=None if body is None else json.dumps(body).encode(),
                headers={**pool.headers, "Content-Type": type_},
            )
        except urllib3.exceptions.HTTPError as error:
            raise MlopsError(
                f"the cluster at {self._server} does not answer: {error}",
                fix="see whether it runs: `mlops laptop status`.",
            ) from error
        said: Object = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, said.get("reason", ""), said.get("message", ""))
        return said

    def _connected(self) -> urllib3.PoolManager:
        with self._lock:
            if self._pool is None:
                try:
                    config = yaml.safe_load(self._kubeconfig.read_text())
                    context = _named(config["contexts"], config["current-context"])["context"]
                    server = _named(config["clusters"], context["cluster"])["cluster"]["server"]
                    token = _named(config["users"], context["user"])["user"]["token"]
                except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
                    raise MlopsError(
                        f"no cluster can be found by {self._kubeconfig}: {error}",
                        fix="start the local target: `mlops laptop start`.",
                    ) from error
                self._server = server
                self._pool = urllib3.PoolManager(
                    maxsize=16,
                    timeout=_TIMEOUT,
                    retries=_NO_RETRIES,
                    headers={"Authorization": f"Bearer {token}"},
                )
            return self._pool


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for item in items:
        if item["name"] == name:
            return item
    raise KeyError(name)
