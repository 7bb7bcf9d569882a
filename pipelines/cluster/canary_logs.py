"""Logs of the Jobs that check a canary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect
from pipelines.cluster.rollout_pods import pods_with_bundle
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import check_name

_JOB = "job-name"
"""Label of a pod with the name of its Job. Argo Rollouts names Jobs `<uid of the AnalysisRun>.<metric>.<number>`."""

_TAIL_LINES = 100
"""Lines of a log that are read: a traceback may follow the outcome."""


def reason_of_check(namespace: str, model: str, bundle: str, outcome: Literal["failed", "inconclusive"]) -> str:
    """Return why the newest check of a bundle had an outcome; "" if its log does not say, or cannot be read.

    Two Jobs run a check. If none of them says that there is no verdict, one of them may have found harm that the other
    has not.

    Args:
        namespace: namespace of the endpoint.
        model: name of the model.
        bundle: digest of the bundle on trial.
        outcome: outcome of the check.
    """
    with suppress(MlopsError, ApiError, httpx2.HTTPError), connect(namespace) as client:
        logs = [
            _log_of(client, str(pod.metadata.name))
            for pod in _newest_run(pods_with_bundle(client, check_name(model), bundle))
            if pod.metadata is not None
        ]
        if why := _said(logs, outcome):
            return why
        if outcome == "inconclusive" and (harm := _said(logs, "failed")):
            return f"only one of its two Jobs found harm: {harm}"
    return ""


def _log_of(client: Client, pod: str) -> list[str]:
    """Return the last lines of a log; none of a pod that was deleted: a failed check ends its other Job."""
    with suppress(ApiError, httpx2.HTTPError):
        return list(client.log(pod, tail_lines=_TAIL_LINES))
    return []


def _newest_run(pods: Sequence[Pod]) -> list[Pod]:
    """Return the pods of the newest check, of pods of which the newest comes first."""
    return [pod for pod in pods if _run_of(pod) == _run_of(pods[0])]


def _run_of(pod: Pod) -> str:
    labels = (pod.metadata.labels if pod.metadata else None) or {}
    return str(labels.get(_JOB, "")).partition(".")[0]


def _said(logs: Iterable[Sequence[str]], outcome: str) -> str:
    start = f"{outcome}: "
    found = (line.removeprefix(start).strip() for log in logs for line in reversed(log) if line.startswith(start))
    return next(found, "")
