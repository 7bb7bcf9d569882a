"""`python -m pipelines.serving.check --model M --bundle sha256:…`: ask the pods of a release that is on trial.

Runs as a Job between the traffic steps of a rollout. Its exit status is the verdict: 0 passed, 1 failed, 2 it could not
be asked, which is worth another try.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import service_name
from pipelines.registry import bundles
from pipelines.serving.golden import compare, request_of, single_rows
from pipelines.startup import spare_the_collector

PASSED, FAILED, INCONCLUSIVE = 0, 1, 2
"""Exit statuses."""

SINGLE_ROWS = 20
"""Requests of one row that a check sends."""

_TIMEOUT_SECONDS = 5.0
_LONGEST_ANSWER = 4 << 20  # bytes

# What a proxy, or a server that starts or stops, answers: it says nothing of the model.
_NOT_ASKED = {http.HTTPStatus.BAD_GATEWAY, http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GATEWAY_TIMEOUT}


class InconclusiveError(MlopsError):
    """The release could not be asked: it neither passed nor failed."""


@dataclass(frozen=True)
class Service:
    """Where a Service answers inside the cluster."""

    name: str
    host: str
    port: int

    @classmethod
    def from_environ(cls, name: str, environ: Mapping[str, str]) -> Service:
        """The Service by the variables that every pod of its namespace gets.

        Source: kubernetes.io, "Service", environment variables.

        Raises:
            InconclusiveError: they are not there, or name no port.
        """
        prefix = name.upper().replace("-", "_")
        host, port = environ.get(f"{prefix}_SERVICE_HOST", ""), environ.get(f"{prefix}_SERVICE_PORT", "")
        if not host or not port.isascii() or not port.isdigit():
            raise InconclusiveError(
                f"{prefix}_SERVICE_HOST and {prefix}_SERVICE_PORT do not name the service {name}",
                fix="run this as a pod of the service's namespace, made after it, with enableServiceLinks",
            )
        return cls(name, host, int(port))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers, from JSON. Each time over a connection of its own: each may lead to another pod.

        Raises:
            InconclusiveError: there was no answer, or one that is not the model server's.
            MlopsError: it refused, or answered something else than JSON.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_SECONDS)
        content = None if body is None else msgspec.json.encode(body)
        try:
            connection.request(method, path, content, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read(_LONGEST_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise InconclusiveError(f"{self.name} does not answer {path}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status in _NOT_ASKED:
            raise InconclusiveError(f"{self.name} answers {path} with {answer.status}: {_start_of(said)}")
        if answer.status != http.HTTPStatus.OK:
            raise MlopsError(f"{self.name} answers {path} with {answer.status}: {_start_of(said)}")
        try:
            return msgspec.json.decode(said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MlopsError(f"{self.name} does not answer {path} in JSON: {_start_of(said)}") from None


def check(service: Service, model: str, digest: str, golden: GoldenPredictions) -> None:
    """Ask a release which bundle it serves, for the golden predictions, and for single rows of them.

    Raises:
        InconclusiveError: it could not be asked.
        MlopsError: it serves another bundle, or predicts something else.
    """
    versions = _field(service.ask("GET", f"/v2/models/{model}"), "versions")
    if versions != [digest]:
        raise MlopsError(f"{service.name} says that it serves {versions}; expected {[digest]}")
    for asked in (golden, *itertools.islice(itertools.cycle(single_rows(golden)), SINGLE_ROWS)):
        answer = service.ask("POST", f"/v2/models/{model}/infer", request_of(asked))
        if (version := _field(answer, "model_version")) != digest:
            raise MlopsError(f"{service.name} answered from {version}; expected {digest}")
        compare(asked, _field(answer, "outputs"))


def _field(answer: Any, name: str) -> Any:
    return answer.get(name) if isinstance(answer, dict) else None


def _start_of(content: bytes) -> str:
    return content[:300].decode(errors="replace")


def golden_of(model: str, digest: str) -> GoldenPredictions:
    """The golden predictions of a bundle, out of the registry of the environment that this runs in.

    Raises:
        UnknownBundleError, TamperedBundleError, DeclarationError: the bundle is not there, or not what it must be.
        InconclusiveError: the registry could not be read.
    """
    try:
        descriptor = EnvironmentDescriptor.from_environ()
        files = bundles.fetch(descriptor, model, digest, ["golden.json"]).files
    except (bundles.UnknownBundleError, bundles.TamperedBundleError):
        raise
    except MlopsError as error:
        raise InconclusiveError(error.what, fix=error.fix) from None
    return parse(files["golden.json"], GoldenPredictions, Path("golden.json"))


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Check one release; the exit status."""
    parser = argparse.ArgumentParser("python -m pipelines.serving.check", description="Check a release on trial.")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--bundle", required=True, help="the digest that it must serve, sha256:…")
    given = parser.parse_args(arguments)
    try:
        service = Service.from_environ(service_name(bundles.checked_name(given.model), "canary"), environ)
        golden = golden_of(given.model, given.bundle)
        check(service, given.model, given.bundle, golden)
    except InconclusiveError as error:
        print(f"inconclusive: {error}", file=sys.stderr)
        return INCONCLUSIVE
    except MlopsError as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    rows = golden.inputs[0].shape[0]
    print(f"passed: {service.name} serves {given.bundle}; {rows} golden rows match, as do {SINGLE_ROWS} of one row")
    return PASSED


if __name__ == "__main__":
    spare_the_collector()
    sys.exit(main(sys.argv[1:], os.environ))
