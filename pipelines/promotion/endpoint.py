"""Ask an endpoint, and prove what it serves: the digest, the golden predictions, the error rate, the latency."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.trial import percentile
from pipelines.registry import bundles

PROBES = 30
"""Requests of one row that a verification sends, and of which the latency counts."""

LARGEST_ANSWER = 64 << 20
"""Bytes."""


@dataclass(frozen=True)
class Verification:
    """What an endpoint was proven to do.

    Attributes:
        bundle: the digest that it serves.
        rows: golden rows that it predicted as it must.
        requests: that it was sent, all answered.
        median_ms, p99_ms: of the time from request to answer, in milliseconds.
    """

    bundle: str
    rows: int
    requests: int
    median_ms: float
    p99_ms: float


class Endpoint:
    """A connection to an endpoint, kept open.

    Args:
        url: its base URL.
        model: the model it serves.
        timeout: of one request, in seconds.
    """

    def __init__(self, url: str, model: str, timeout: float = 10.0) -> None:
        self.url = url
        self.model = model
        where = urlsplit(url)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(where.hostname or "", where.port, timeout=timeout)
        self._base = where.path.rstrip("/")

    def served(self) -> str:
        """The digest of the bundle that it says it serves.

        Raises:
            MlopsError: it does not answer, or not as the protocol asks.
        """
        versions = self.get(f"/v2/models/{self.model}").get("versions")
        if not isinstance(versions, list) or len(versions) != 1:
            raise MlopsError(f"{self.url} does not say which bundle of {self.model} it serves")
        return str(versions[0])

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """A prediction.

        Raises:
            MlopsError: the request was refused or not answered.
        """
        return self._ask("POST", f"/v2/models/{self.model}/infer", json.dumps(request).encode())

    def get(self, path: str) -> dict[str, Any]:
        """What a path of it says.

        Raises:
            MlopsError: it does not answer, or with an error.
        """
        return self._ask("GET", path, None)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        for again in (True, False):
            try:
                self._connection.request(method, self._base + path, body, {"content-type": "application/json"})
                answer = self._connection.getresponse()
                content = answer.read(LARGEST_ANSWER + 1)
                break
            except (ConnectionError, http.client.BadStatusLine):
                # An idle connection may be closed at any time; a fresh one tells whether the endpoint is there.
                self._connection.close()
                if not again:
                    raise MlopsError(f"{self.url}{path} ends the connection without an answer") from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise MlopsError(f"{self.url}{path} does not answer: {str(error) or type(error).__name__}") from None
        if len(content) > LARGEST_ANSWER:
            self._connection.close()
            raise MlopsError(f"{self.url}{path} answered more than {LARGEST_ANSWER} bytes")
        if answer.status != http.HTTPStatus.OK:
            raise MlopsError(f"{self.url}{path} answered {answer.status}: {content[:500].decode(errors='replace')}")
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise MlopsError(f"{self.url}{path} did not answer with a JSON object: {content[:200]!r}")
        return parsed


@contextmanager
def connected(descriptor: EnvironmentDescriptor, model: str) -> Iterator[Endpoint]:
    """The endpoint of a model in an environment.

    Raises:
        MlopsError: nothing is released there.
    """
    url = descriptor.endpoints.get(model)
    if url is None:
        raise MlopsError(f"{model} has no endpoint in {descriptor.name}", fix="release a bundle there and deploy it")
    endpoint = Endpoint(url, model)
    try:
        yield endpoint
    finally:
        endpoint.close()


def golden_of(descriptor: EnvironmentDescriptor, model: str, digest: str) -> GoldenPredictions:
    """The golden predictions of a bundle.

    Raises:
        MlopsError: the bundle cannot be read or was changed.
    """
    content = bundles.fetch(descriptor, model, digest, ["golden.json"]).files["golden.json"]
    return parse(content, GoldenPredictions, Path("golden.json"))


def verify(descriptor: EnvironmentDescriptor, model: str, digest: str, budget_ms: float) -> Verification:
    """Prove that the endpoint of a model serves a bundle, rightly and fast enough.

    The budget is that of the 99th percentile in the serving runtime; here, where a network and whatever else runs lie
    between, the median must keep it.

    Args:
        descriptor: the environment.
        model: the model.
        digest: the bundle that it must serve.
        budget_ms: milliseconds.

    Raises:
        MlopsError: it serves another bundle, predicts something else, answers with an error, or is too slow.
    """
    from pipelines.serving.golden import compare, request_of, single_rows

    golden = golden_of(descriptor, model, digest)
    rows, times = single_rows(golden), []
    if not rows:
        raise MlopsError(f"the bundle {digest} holds no golden prediction to verify its endpoint by")
    with connected(descriptor, model) as endpoint:
        found = endpoint.served()
        if found != digest:
            raise MlopsError(f"{endpoint.url} serves {found}; expected {digest}")
        for number, asked in enumerate((golden, *islice(cycle(rows), PROBES))):
            request = request_of(asked)
            began = time.perf_counter()
            answer = endpoint.infer(request)
            if number:
                times.append((time.perf_counter() - began) * 1000)
            if answer.get("model_version") != digest:
                raise MlopsError(f"{endpoint.url} answered from {answer.get('model_version')}; expected {digest}")
            try:
                compare(asked, answer.get("outputs"))
            except MlopsError as error:
                raise MlopsError(f"{endpoint.url} predicts something else: {error.what}", fix=error.fix) from None
    median = percentile(times, 0.5)
    if median > budget_ms:
        raise MlopsError(
            f"half of the answers of {descriptor.endpoints[model]} take {median:.1f} ms or more; "
            f"the budget is {budget_ms:g} ms"
        )
    return Verification(digest, golden.inputs[0].shape[0], PROBES, median, percentile(times, 0.99))
