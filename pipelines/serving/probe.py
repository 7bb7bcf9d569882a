"""HTTP client of a model's endpoint."""

from __future__ import annotations

import http.client
import json
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles
from pipelines.serving.http_proxy import proxy_of

LARGEST_ANSWER = 64 << 20
"""Default size limit of a response, in bytes."""

TIMEOUT_SECONDS = 10.0
"""Default timeout of a request, in seconds."""

_GATEWAY_ERRORS = (
    http.client.BAD_GATEWAY,
    http.client.SERVICE_UNAVAILABLE,
    http.client.GATEWAY_TIMEOUT,
)
"""Statuses of proxies, and of servers that are starting or stopping. They say nothing about the model."""


class UnavailableError(MlopsError):
    """The endpoint did not answer, or something in front of it did."""


class EndpointClient:
    """A connection to an endpoint. Honours the standard proxy variables (`http_proxy`, `https_proxy`, `no_proxy`).

    Args:
        url: base URL of the endpoint.
        model: name of the model it serves.
        connection: reaches the endpoint; by default, a connection to the host of the URL.
        timeout: timeout of a request, in seconds.
        keep_alive: reuse the connection. Without it each request opens a connection, which may reach another pod.
        largest_answer: size limit of a response, in bytes.
        headers: headers of each request.
        context: settings of TLS; the standard ones by default.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        connection: http.client.HTTPConnection | None = None,
        timeout: float = TIMEOUT_SECONDS,
        keep_alive: bool = True,
        largest_answer: int = LARGEST_ANSWER,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self._keep_alive = keep_alive
        self._largest_answer = largest_answer
        target = urlsplit(url)
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._base = target.path.rstrip("/")
        if connection is not None:
            self._base = ""
            self._connection = connection
            return
        proxy = proxy_of(target)
        host, port = (target.hostname, target.port) if proxy is None else (proxy.hostname, proxy.port)
        self._connection = (
            http.client.HTTPSConnection(host or "", port, timeout=timeout, context=context)
            if target.scheme == "https"
            else http.client.HTTPConnection(host or "", port, timeout=timeout)
        )
        if proxy is None:
            return
        if target.scheme == "https":
            self._connection.set_tunnel(target.hostname or "", target.port, _credentials_of(proxy))
        else:
            # A request to a proxy names the whole URL (RFC 9112, section 3.2.2).
            self._base = f"http://{target.netloc}{self._base}"
            self._headers |= _credentials_of(proxy)

    def served(self) -> str:
        """Return the digest of the bundle that the endpoint reports.

        Raises:
            UnavailableError: the endpoint does not answer.
            MlopsError: it answers with an error, or does not report exactly one bundle.
        """
        versions = self.get(f"/v2/models/{self.model}").get("versions")
        if not isinstance(versions, list) or len(versions) != 1:
            raise MlopsError(f"versions of {self.model} at {self.url}: expected one bundle, found {versions!r}")
        return str(versions[0])

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send an inference request of the Open Inference Protocol v2; return the answer.

        Raises:
            UnavailableError: the endpoint does not answer.
            MlopsError: it answers with an error.
        """
        return self._send("POST", f"/v2/models/{self.model}/infer", json.dumps(request).encode())

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`.

        Raises:
            UnavailableError: the endpoint does not answer.
            MlopsError: it answers with an error.
        """
        return self._send("GET", path, None)

    def get_text(self, path: str) -> str:
        """Return the text at `path`.

        Raises:
            UnavailableError: the endpoint does not answer.
            MlopsError: it answers with an error.
        """
        return self._exchange("GET", path, None).decode(errors="replace")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        content = self._exchange(method, path, body)
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise MlopsError(f"{self.url}{path}: expected a JSON object, found {content[:200]!r}")
        return parsed

    def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        for attempts_left in (1, 0):
            try:
                self._connection.request(method, self._base + path, body, self._headers)
                answer = self._connection.getresponse()
                content = answer.read(self._largest_answer + 1)
                break
            except (ConnectionError, http.client.BadStatusLine):
                # A server may close an idle connection at any time; a new connection shows whether it is still there.
                self._connection.close()
                if not attempts_left:
                    raise UnavailableError(f"{self.url}{path} ends the connection without an answer") from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise UnavailableError(
                    f"{self.url}{path} does not answer: {str(error) or type(error).__name__}"
                ) from None
        if not self._keep_alive or len(content) > self._largest_answer:
            self._connection.close()
        if len(content) > self._largest_answer:
            raise MlopsError(f"{self.url}{path}: expected at most {self._largest_answer} bytes, found more")
        if answer.status != http.client.OK:
            kind = UnavailableError if answer.status in _GATEWAY_ERRORS else MlopsError
            raise kind(f"{self.url}{path} answered {answer.status}: {content[:500].decode(errors='replace')}")
        return content


def _credentials_of(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {b64encode(pair.encode()).decode()}"}


@contextmanager
def open_endpoint(descriptor: EnvironmentDescriptor, model: str) -> Iterator[EndpointClient]:
    """Open a client of a model's endpoint in an environment.

    Raises:
        MlopsError: the model has no endpoint there.
    """
    url = descriptor.endpoints.get(model)
    if url is None:
        raise MlopsError(f"{model} has no endpoint in {descriptor.name}", fix="release a bundle there and deploy it")
    client = EndpointClient(url, model)
    try:
        yield client
    finally:
        client.close()


def golden_of(descriptor: EnvironmentDescriptor, model: str, digest: str) -> GoldenPredictions:
    """Read the golden predictions of a bundle from the registry.

    Raises:
        UnknownBundleError: the registry does not have the bundle.
        TamperedBundleError: a file differs from the manifest.
        MlopsError: the registry cannot be read, or `golden.json` is not valid.
    """
    content = bundles.fetch(descriptor, model, digest, ["golden.json"]).files["golden.json"]
    return parse(content, GoldenPredictions, Path("golden.json"))
