"""Ask an endpoint, and prove what it serves: the digest, the golden predictions, the error rate, the latency."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.trial import first_row, percentile
from pipelines.registry import bundles

PROBES = 30
"""Requests that a verification sends."""


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
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=timeout)

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
                self._connection.request(method, path, body, {"content-type": "application/json"})
                answer = self._connection.getresponse()
                content = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # An idle connection may be closed at any time; a fresh one tells whether the endpoint is there.
                self._connection.close()
                if not again:
                    raise MlopsError(f"{self.url}{path} ends the connection without an answer") from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise MlopsError(f"{self.url}{path} does not answer: {error}") from None
        if answer.status != http.HTTPStatus.OK:
            raise MlopsError(f"{self.url}{path} answered {answer.status}: {content[:500].decode(errors='replace')}")
        try:
            parsed: dict[str, Any] = json.loads(content)
        except ValueError:
            raise MlopsError(f"{self.url}{path} did not answer in JSON: {content[:200]!r}") from None
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
    golden = golden_of(descriptor, model, digest)
    with connected(descriptor, model) as endpoint:
        found = endpoint.served()
        if found != digest:
            raise MlopsError(f"{endpoint.url} serves {found}; expected {digest}")
        whole = endpoint.infer({"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]})
        check_answer(golden, whole, endpoint.url)
        one = {"inputs": [first_row(tensor) for tensor in golden.inputs]}
        times = []
        for _ in range(PROBES):
            began = time.perf_counter()
            answer = endpoint.infer(one)
            times.append((time.perf_counter() - began) * 1000)
            if answer.get("model_version") != digest:
                raise MlopsError(f"{endpoint.url} answered from {answer.get('model_version')}; expected {digest}")
    median = percentile(times, 0.5)
    if median > budget_ms:
        raise MlopsError(
            f"half of the answers of {descriptor.endpoints[model]} take {median:.1f} ms or more; "
            f"the budget is {budget_ms:g} ms"
        )
    return Verification(digest, golden.inputs[0].shape[0], PROBES, median, percentile(times, 0.99))


def check_answer(golden: GoldenPredictions, answer: dict[str, Any], who: str) -> None:
    """Compare an answer with the golden one.

    Raises:
        MlopsError: it differs; with the first value that does.
    """
    outputs = {output.get("name"): output for output in answer.get("outputs", ())}
    for expected in golden.outputs:
        found = outputs.get(expected.name, {}).get("data")
        if not isinstance(found, list) or len(found) != len(expected.data):
            raise MlopsError(f"{who} gives no output {expected.name} of {len(expected.data)} values")
        for place, (is_, must) in enumerate(zip(found, expected.data, strict=True)):
            if not alike(is_, must, golden):
                raise MlopsError(f"{who} predicts {is_} in place {place} of {expected.name}; expected {must}")


def alike(found: Any, expected: Any, golden: GoldenPredictions) -> bool:
    """Whether a value is the golden one: within the tolerance where it is a number, exactly where it is not."""
    if isinstance(expected, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return math.isclose(found, expected, rel_tol=golden.relative_tolerance, abs_tol=golden.absolute_tolerance)
    return bool(found == expected)
