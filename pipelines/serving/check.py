"""Canary check: `python -m pipelines.serving.check --model NAME --bundle sha256:… --live ping|pong`.

Argo Rollouts runs it as a Job between the traffic steps of a rollout. The exit status is the verdict: 0 passed,
1 failed, 2 inconclusive. An inconclusive check may be retried. Two Services take turns: `--live` names the one in front
of the live pods, so the other one is in front of the pods on trial. `CHECK_PING_URL` and `CHECK_PONG_URL` are their
URLs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.registry import bundles
from pipelines.serving.golden import GoldenMismatchError, check_golden, row_count
from pipelines.serving.probe import EndpointClient, UnavailableError, golden_of
from pipelines.startup import relax_gc

VARIABLES = {"ping": "CHECK_PONG_URL", "pong": "CHECK_PING_URL"}
"""Service of the live pods → environment variable with the URL of the Service in front of the pods on trial."""

PASSED, FAILED, INCONCLUSIVE = 0, 1, 2
"""Exit statuses."""

SINGLE_ROW_REQUESTS = 20
"""Number of one-row requests that a check sends."""

_TIMEOUT_SECONDS = 5.0
_LARGEST_ANSWER = 4 << 20  # bytes; the pod is small


def canary_url(environ: Mapping[str, str], live: str) -> str:
    """Read the URL of the Service in front of the pods on trial.

    Args:
        environ: environment variables.
        live: the Service of the live pods, `ping` or `pong`.

    Raises:
        UnavailableError: the live Service is not known, or the environment variable is missing or not a URL.
    """
    if live not in VARIABLES:
        raise UnavailableError(
            f"Service of the live pods: expected ping or pong, found {live!r}",
            fix="see the status of the Rollout: canary.stablePingPong",
        )
    url = environ.get(VARIABLES[live], "")
    if not re.fullmatch(r"https?://[^/\s]+\S*", url):
        raise UnavailableError(
            f"environment variable {VARIABLES[live]}: expected an http URL, found {url!r}",
            fix="run the check from the AnalysisTemplate of the model",
        )
    return url


def check(url: str, model: str, digest: str, golden: GoldenPredictions) -> None:
    """Check which bundle a release serves, and that it answers its golden predictions.

    Every request opens a connection, so requests spread over all pods behind the Service.

    Args:
        url: URL of the Service in front of the pods on trial.
        model: the model's name.
        digest: the bundle that it must serve.
        golden: golden predictions of that bundle.

    Raises:
        UnavailableError: the release does not answer, so it neither passed nor failed.
        MlopsError: it serves another bundle, answers with an error, or predicts something else.
    """
    client = EndpointClient(url, model, timeout=_TIMEOUT_SECONDS, keep_alive=False, largest_answer=_LARGEST_ANSWER)
    if (served := client.served()) != digest:
        raise MlopsError(f"bundle that {url} serves: expected {digest}, found {served}")
    try:
        check_golden(client.infer, golden, digest, single_row_requests=SINGLE_ROW_REQUESTS)
    except GoldenMismatchError as error:
        raise MlopsError(f"{url}: {error.what}", fix=error.fix) from None


def read_golden(model: str, digest: str) -> GoldenPredictions:
    """Read the golden predictions of a bundle from the registry of the environment that this process runs in.

    Raises:
        UnavailableError: the environment is not described, or its registry cannot be read.
        MlopsError: the registry does not have the bundle, or it was changed.
    """
    try:
        descriptor = EnvironmentDescriptor.from_environ()
    except MlopsError as error:
        raise UnavailableError(error.what, fix=error.fix) from None
    try:
        return golden_of(descriptor, model, digest)
    except (bundles.UnknownBundleError, bundles.TamperedBundleError, DeclarationError):
        raise
    except MlopsError as error:
        raise UnavailableError(error.what, fix=error.fix) from None


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Check one release; return the exit status."""
    parser = argparse.ArgumentParser("python -m pipelines.serving.check", description="Check a release on trial.")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--bundle", required=True, help="digest of the bundle that it must serve, sha256:…")
    parser.add_argument("--live", required=True, help="Service in front of the live pods, ping or pong")
    given = parser.parse_args(arguments)
    try:
        url = canary_url(environ, given.live)
        golden = read_golden(given.model, given.bundle)
        check(url, given.model, given.bundle, golden)
    except UnavailableError as error:
        print(f"inconclusive: {error}", file=sys.stderr)
        return INCONCLUSIVE
    except MlopsError as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    print(
        f"passed: {url} serves {given.bundle}; {row_count(golden)} golden rows match, "
        f"and {SINGLE_ROW_REQUESTS} requests of one row"
    )
    return PASSED


if __name__ == "__main__":
    relax_gc()
    sys.exit(main(sys.argv[1:], os.environ))
