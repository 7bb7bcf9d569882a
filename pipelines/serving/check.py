"""Canary check: `python -m pipelines.serving.check --model NAME --bundle sha256:… --live ping|pong`.

Argo Rollouts runs it as Jobs during each traffic step of a rollout. First the canary must answer its golden requests;
then its requests are compared with those of the live pods (`canary_analysis`). A Job has two results, and a check has
three outcomes, so two Jobs run it, and `CHECK_SETTINGS` says which outcome fails a Job: the exit status of the first is
3 if the canary is bad, and that of the second is 2 if there is no verdict in time. Otherwise it is 0. Two Services take
turns: `--live` names the one in front of the live pods. `CHECK_PING_URL` and `CHECK_PONG_URL` are their URLs.
`CHECK_SECONDS` is the declared duration of the traffic step. If the settings name a Prometheus, counts are read there;
`--canary-hash` and `--live-hash` then say which pods belong to which release.

In a shadow step (`CHECK_SHADOW_PERCENT`), the canary has no callers. The check then listens on `HOST` and `PORT` for
live pods, tells them where to send copies of requests, and compares the canary's answers with theirs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.canary_settings import SECONDS_VARIABLE, SETTINGS_VARIABLE, CanarySettings
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.shadow_traffic import MOST_PERCENT, SHADOW_PERCENT, ShadowTarget
from pipelines.registry import bundles
from pipelines.serving.canary_analysis import CanaryVerdict, Outcome, judge_canary
from pipelines.serving.golden import GoldenMismatchError, check_golden, prediction_deviation, row_count
from pipelines.serving.pod_counters import RequestCounters, counters_of
from pipelines.serving.probe import EndpointClient, UnavailableError, golden_of
from pipelines.serving.prometheus_counters import PrometheusCounters, counters_query, open_prometheus
from pipelines.serving.shadow_beacon import serve_beacon
from pipelines.serving.shadow_counters import can_copy, copy_counters
from pipelines.startup import relax_gc

VARIABLES = {"ping": "CHECK_PING_URL", "pong": "CHECK_PONG_URL"}
"""Service → environment variable with its URL."""

INCONCLUSIVE, FAILED = 2, 3
"""Exit statuses. Python's own is 1, so a check that cannot start does not look like a bad canary."""

SINGLE_ROW_REQUESTS = 20
"""Number of one-row requests that a check sends."""

GOLDEN_SECONDS = 30.0
"""Least time for which a canary that does not answer is asked again."""

OTHER_JOB_SECONDS = 300.0
"""Least time for which a Job that must not abort the rollout waits for the one that does: its pod may need a node."""

LOOK_SECONDS = 2.0
"""Time between two looks at the counters."""

_SAY_SECONDS = 30.0
_TIMEOUT_SECONDS = 5.0
_LARGEST_ANSWER = 4 << 20  # bytes; the pod is small


@dataclass(frozen=True, kw_only=True)
class CanaryTrial:
    """One check of one canary.

    Attributes:
        model: name of the model.
        bundle: digest of the bundle that the canary must serve.
        canary, live: URLs of the Services in front of the pods on trial and of the live pods.
        settings: what to check, and how long.
        seconds: least duration of the check, unless it fails.
        hashes: hashes of the pod templates of the canary and of the live release, for Prometheus.
        golden_deviation: standard deviation of the golden predictions of the live bundle; 0 if it is not known.
        shadow: where live pods send copies of requests in a shadow step; None in a traffic step.
        environ: environment variables, with the header for Prometheus, and with `HOST` and `PORT`.
    """

    model: str
    bundle: str
    canary: str
    live: str
    settings: CanarySettings
    seconds: float = 0.0
    hashes: tuple[str, str] = ("", "")
    golden_deviation: float = 0.0
    shadow: ShadowTarget | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check, and why."""

    outcome: Outcome
    reason: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.outcome}: {self.reason}"


@dataclass(frozen=True)
class Clock:
    """Time of a check; tests replace it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def service_urls(environ: Mapping[str, str], live: str) -> tuple[str, str]:
    """Read the URLs of the Services in front of the pods on trial, and of the live pods.

    Args:
        environ: environment variables.
        live: the Service of the live pods, `ping` or `pong`.

    Raises:
        UnavailableError: the live Service is not known, or an environment variable is missing or not a URL.
    """
    if live not in VARIABLES:
        raise UnavailableError(
            f"Service of the live pods: expected ping or pong, found {live!r}",
            fix="see the status of the Rollout: canary.stablePingPong",
        )
    found = []
    for service in sorted(VARIABLES, key=lambda name: name == live):
        url = environ.get(VARIABLES[service], "")
        if not re.fullmatch(r"https?://[^/\s]+\S*", url):
            raise UnavailableError(
                f"environment variable {VARIABLES[service]}: expected an http URL, found {url!r}",
                fix="run the check from the AnalysisTemplate of the model",
            )
        found.append(url)
    return found[0], found[1]


def read_settings(environ: Mapping[str, str]) -> CanarySettings:
    """Read the settings of the check from the environment variables.

    Raises:
        UnavailableError: they are missing or not valid.
    """
    try:
        return parse(environ.get(SETTINGS_VARIABLE, "").encode(), CanarySettings, Path(SETTINGS_VARIABLE))
    except MlopsError as error:
        raise UnavailableError(error.what, fix="run the check from the AnalysisTemplate of the model") from None


def read_seconds(environ: Mapping[str, str]) -> float:
    """Read the declared duration of the traffic step, in seconds.

    Raises:
        UnavailableError: the environment variable is missing or not a number.
    """
    text = environ.get(SECONDS_VARIABLE, "")
    if not re.fullmatch("[0-9]{1,6}", text):
        raise UnavailableError(
            f"environment variable {SECONDS_VARIABLE}: expected seconds, found {text!r}",
            fix="run the check from the AnalysisTemplate of the model",
        )
    return float(text)


def read_shadow(environ: Mapping[str, str], live: str) -> ShadowTarget | None:
    """Read where live pods send copies of requests; None in a traffic step.

    Args:
        environ: environment variables.
        live: the Service of the live pods, `ping` or `pong`.

    Raises:
        UnavailableError: the share is not valid.
    """
    text = environ.get(SHADOW_PERCENT) or "0"
    if text == "0":
        return None
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > MOST_PERCENT:
        raise UnavailableError(
            f"environment variable {SHADOW_PERCENT}: expected a whole number up to {MOST_PERCENT}, found {text!r}",
            fix="run the check from the AnalysisTemplate of the model",
        )
    return ShadowTarget(canary="pong" if live == "ping" else "ping", percent=int(text))


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


def examine(trial: CanaryTrial, clock: Clock, say: Callable[[str], None]) -> CheckResult:
    """Check a canary until there is a result.

    Args:
        trial: the canary.
        clock: the time.
        say: receives progress.
    """
    began = clock.now()
    end = began + trial.seconds + trial.settings.wait_seconds
    try:
        rows = _answer_golden(trial, clock, max(end, began + GOLDEN_SECONDS))
    except UnavailableError as error:
        return CheckResult("inconclusive", str(error))
    except MlopsError as error:
        return CheckResult("failed", str(error))
    answered = f"{trial.canary} serves {trial.bundle}; {rows} golden rows match, and {SINGLE_ROW_REQUESTS} requests"
    if trial.settings.golden_only:
        return CheckResult("passed", answered)
    say(answered)
    trial = replace(trial, golden_deviation=live_deviation(trial, say))
    try:
        if trial.shadow is not None:
            return _examine_shadow(trial, trial.shadow, began, clock, say)
        canary, live = open_counters(trial)
    except UnavailableError as error:
        return CheckResult("inconclusive", str(error))
    return result_of(trial, canary, live, watch(canary, live, trial, began, clock, say))


def live_deviation(trial: CanaryTrial, say: Callable[[str], None]) -> float:
    """Return the standard deviation of the golden predictions of the live bundle; 0 if they cannot be read."""
    try:
        client = EndpointClient(trial.live, trial.model, timeout=_TIMEOUT_SECONDS, keep_alive=False)
        return prediction_deviation(read_golden(trial.model, client.served()))
    except MlopsError as error:
        say(f"golden predictions of the live bundle: {error.what}")
        return 0.0


def _examine_shadow(
    trial: CanaryTrial, target: ShadowTarget, began: float, clock: Clock, say: Callable[[str], None]
) -> CheckResult:
    """Let live pods copy requests to a canary without callers, and compare the answers.

    Raises:
        UnavailableError: the beacon cannot listen.
    """
    if not can_copy(trial.live, trial.model, _TIMEOUT_SECONDS):
        return CheckResult(
            "passed", "the live pods were started before the model declared `shadow`: nothing is compared"
        )
    slow = trial.settings.bounds.p99_ms / 1000
    canary, live = copy_counters(trial.canary, trial.model, slow, _TIMEOUT_SECONDS)
    canary.look()  # copies count from here on
    live.look()
    host, port = trial.environ.get("HOST") or "127.0.0.1", trial.environ.get("PORT") or "0"
    with serve_beacon(target, host, int(port) if port.isdigit() else 0):
        say(f"the live pods copy {target.percent} % of the requests to {trial.canary}")
        verdict = watch(canary, live, trial, began, clock, say)
    return result_of(trial, canary, live, verdict)


def result_of(
    trial: CanaryTrial, canary: RequestCounters, live: RequestCounters, verdict: CanaryVerdict
) -> CheckResult:
    """Return the outcome of a comparison."""
    summary = f"{trial.canary} is {verdict.summary}" if verdict.outcome != "inconclusive" else verdict.summary
    problem = canary.problem or live.problem
    if verdict.outcome == "inconclusive" and problem:
        summary = f"{summary} ({problem})"
    return CheckResult(verdict.outcome, summary)


def open_counters(trial: CanaryTrial) -> tuple[RequestCounters, RequestCounters]:
    """Return the counters of the canary and of the live pods.

    Raises:
        UnavailableError: Prometheus cannot be asked as it is declared.
    """
    slow = trial.settings.bounds.p99_ms / 1000
    prometheus = trial.settings.prometheus
    if prometheus is None:
        canary, live = (counters_of(url, trial.model, slow, _TIMEOUT_SECONDS) for url in (trial.canary, trial.live))
        return canary, live
    query = open_prometheus(prometheus, trial.environ, _TIMEOUT_SECONDS)
    for pod_hash in trial.hashes:
        counters_query(trial.model, pod_hash)  # raises an error if it is missing
    first, second = (
        PrometheusCounters(query, trial.model, pod_hash, slow, prometheus.job) for pod_hash in trial.hashes
    )
    return first, second


def _answer_golden(trial: CanaryTrial, clock: Clock, end: float) -> int:
    """Ask for the golden predictions until the canary answers; return their number of rows.

    Raises:
        UnavailableError: it did not answer until the end.
        MlopsError: it is wrong.
    """
    while True:
        try:
            golden = read_golden(trial.model, trial.bundle)
            check(trial.canary, trial.model, trial.bundle, golden)
            return row_count(golden)
        except UnavailableError:
            if clock.now() + LOOK_SECONDS > end:
                raise
        clock.sleep(LOOK_SECONDS)


def watch(
    canary: RequestCounters,
    live: RequestCounters,
    trial: CanaryTrial,
    began: float,
    clock: Clock,
    say: Callable[[str], None],
) -> CanaryVerdict:
    """Compare the canary with the live pods until it fails, or has passed and its time is over, or all time is over.

    Args:
        canary, live: counters of their pods.
        trial: the canary.
        began: time when the check began.
        clock: the time.
        say: receives progress.
    """
    declared = began + trial.seconds
    end, said, problem = declared + trial.settings.wait_seconds, -_SAY_SECONDS, ""
    while True:
        canary.look()
        live.look()
        before, problem = problem, canary.problem or live.problem
        if problem not in ("", before):
            say(problem)
        verdict = judge_canary(
            canary.totals,
            live.totals,
            trial.settings.bounds,
            golden_deviation=trial.golden_deviation,
            copied=trial.shadow is not None,
        )
        now = clock.now()
        if verdict.outcome == "failed" or now >= end or (verdict.outcome == "passed" and now >= declared):
            for finding in verdict.findings:
                say(str(finding))
            return verdict
        if now >= said + _SAY_SECONDS:
            say(verdict.summary)
            said = now
        clock.sleep(min(LOOK_SECONDS, max(0.0, (declared if now < declared else end) - now)))


def main(arguments: list[str], environ: Mapping[str, str], clock: Clock | None = None) -> int:
    """Check one canary; return the exit status."""
    parser = argparse.ArgumentParser("python -m pipelines.serving.check", description="Check a canary.")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--bundle", required=True, help="digest of the bundle that it must serve, sha256:…")
    parser.add_argument("--live", required=True, help="Service in front of the live pods, ping or pong")
    parser.add_argument("--canary-hash", default="", help="hash of the pod template of the canary, for Prometheus")
    parser.add_argument("--live-hash", default="", help="hash of the pod template of the live release")
    given = parser.parse_args(arguments)
    clock = clock or Clock()
    began, fail_if, seconds = clock.now(), "inconclusive", 0.0
    try:
        settings = read_settings(environ)
        fail_if = settings.fail_if
        canary, live = service_urls(environ, given.live)
        trial = CanaryTrial(
            model=given.model,
            bundle=given.bundle,
            canary=canary,
            live=live,
            settings=settings,
            seconds=read_seconds(environ),
            hashes=(given.canary_hash, given.live_hash),
            shadow=read_shadow(environ, given.live),
            environ=environ,
        )
        seconds = trial.seconds + settings.wait_seconds
        result = examine(trial, clock, lambda line: print(line, flush=True))
    except UnavailableError as error:
        result = CheckResult("inconclusive", str(error))
    except Exception:  # whatever it is, it says nothing about the canary
        result = CheckResult("inconclusive", f"the check itself failed\n{traceback.format_exc()}")
    print(result, flush=True)
    return _status(result.outcome, fail_if, began + seconds, clock)


def _status(outcome: Outcome, fail_if: str, end: float, clock: Clock) -> int:
    """Return the exit status of an outcome."""
    if fail_if == "failed":
        return FAILED if outcome == "failed" else 0
    if outcome == "failed":
        # The other Job aborts the rollout, which ends this one. If this one ended first, the rollout would only pause.
        clock.sleep(max(OTHER_JOB_SECONDS, end - clock.now()))
    return 0 if outcome == "passed" else INCONCLUSIVE


if __name__ == "__main__":
    relax_gc()
    sys.exit(main(sys.argv[1:], os.environ))
