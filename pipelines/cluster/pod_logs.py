"""Logs of the pods of a workload: the pods that serve a model, or the newest pod of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect, read_with_retry
from pipelines.cluster.jobs import created_at
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import log_line

WORKLOAD = "app.kubernetes.io/name"
"""Label of a pod with the name of its workload."""

_JOB = "job-name"
_STARTED = ("Running", "Succeeded", "Failed")


def show_logs(
    namespace: str,
    workload: str,
    on_line: Callable[[str], None],
    *,
    follow: bool = False,
    since_seconds: int | None = None,
) -> None:
    """Pass on the lines that the pods of a workload print. With several pods, each line begins with its pod.

    Characters that a terminal would act on are replaced.

    Args:
        namespace: the Kubernetes namespace.
        workload: the workload's name. Of a job, only the newest pod is shown.
        on_line: called with each line; by one thread at a time.
        follow: wait for further lines until every pod ends.
        since_seconds: leave out lines that are older.

    Raises:
        MlopsError: the workload has no pods, none has started, or a log cannot be read.
    """
    with connect(namespace) as client:
        pods = _started(client, workload)
        if len(pods) == 1:
            _pass_on(_read(client, pods[0], follow=follow, since=since_seconds), on_line)
            return
        turn = threading.Lock()
        failed: list[MlopsError] = []

        def show(pod: str) -> None:
            def line(text: str) -> None:
                with turn:
                    on_line(f"{pod}  {text}")

            try:
                _pass_on(_read(client, pod, follow=follow, since=since_seconds), line)
            except MlopsError as error:
                failed.append(error)

        if not follow:
            for pod in pods:
                show(pod)
        else:
            threads = [threading.Thread(target=show, args=(pod,), daemon=True) for pod in pods]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failed:
            raise failed[0]


def _started(client: Client, workload: str) -> list[str]:
    """Return the names of the pods whose logs to show, the oldest first.

    Raises:
        MlopsError: there are none.
    """
    pods = read_with_retry(lambda: list(client.list(Pod)))
    own = sorted((pod for pod in pods if _label(pod, WORKLOAD) == workload), key=created_at)
    if not own:
        known = sorted({_label(pod, WORKLOAD) for pod in pods} - {""})
        raise MlopsError(
            f"no pod of {workload!r} in namespace {client.namespace!r}: expected one of {', '.join(known) or 'none'}",
            fix="use the name of a model that is released there, or of a job that has run; logs of ended jobs are kept "
            "for a day",
        )
    started = [pod for pod in own if (pod.status.phase if pod.status else None) in _STARTED]
    if not started:
        raise MlopsError(f"no pod of {workload!r} has started yet", fix=f"kubectl -n {client.namespace} describe pods")
    shown = started[-1:] if _label(started[-1], _JOB) else started
    return [str(pod.metadata.name) for pod in shown if pod.metadata]


def _read(client: Client, pod: str, *, follow: bool, since: int | None) -> Iterable[str]:
    try:
        yield from client.log(pod, follow=follow, since=since, newlines=False)
    except ApiError as error:
        raise MlopsError(f"the log of {pod} cannot be read: {error.status.message}") from None
    except httpx2.HTTPError as error:
        raise MlopsError(f"the log of {pod} ended: {error}", fix="run it again") from None


def _pass_on(lines: Iterable[str], on_line: Callable[[str], None]) -> None:
    for line in lines:
        on_line(log_line(line))


def _label(pod: Pod, name: str) -> str:
    labels = (pod.metadata.labels if pod.metadata else None) or {}
    return str(labels.get(name, ""))
