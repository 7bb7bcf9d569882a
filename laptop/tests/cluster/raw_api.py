"""Requests to the Kubernetes API as plain JSON, for what no client library sends."""

from __future__ import annotations

import base64
import functools
import json
import ssl
from pathlib import Path
from typing import Any

import urllib3
import yaml

Object = dict[str, Any]


class ApiError(Exception):
    """The API refused a request.

    Args:
        code: HTTP status.
        reason: machine-readable reason of Kubernetes, such as `AlreadyExists`.
        message: text for people.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        super().__init__(message)


class Client:
    """Connection to the cluster of a kubeconfig, which is read at the first request. Thread-safe."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def get(self, path: str) -> Object | None:
        """Return the object at a path, or None."""
        try:
            return self.send("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def send(self, method: str, path: str, body: Object | None = None, *, type_: str = "application/json") -> Object:
        """Send a request and return the answer.

        Raises:
            ApiError: the API refused it.
        """
        server, pool = self._connection
        content = None if body is None else json.dumps(body).encode()
        answer = pool.request(method, f"{server}{path}", body=content, headers={**pool.headers, "Content-Type": type_})
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        found: Object = json.loads(answer.data) if is_json else {"message": answer.data.decode()}
        if answer.status >= 400:
            raise ApiError(answer.status, found.get("reason", ""), found.get("message", ""))
        return found

    @functools.cached_property
    def _connection(self) -> tuple[str, urllib3.PoolManager]:
        config = yaml.safe_load(self._kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        pool = urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=3.0, read=30.0),
            retries=urllib3.Retry(total=0),
            ssl_context=ssl.create_default_context(cadata=authority),
            headers={"Authorization": f"Bearer {user['token']}"},
        )
        return cluster["server"], pool
