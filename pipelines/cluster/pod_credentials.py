"""Credentials of pods: EKS Pod Identity adds them when a pod is created, and never later.

A pod that is created before its association takes effect fails until it is replaced, because a restart keeps its
variables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect, read_with_retry, write_with_retry
from pipelines.cluster.rollouts import Rollout
from pipelines.declarations.errors import MlopsError

VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
"""Environment variable that EKS Pod Identity adds to every container of a pod whose service account has a role."""

NO_CREDENTIALS = "Unable to locate credentials"
"""What boto3 says in a pod without credentials."""

POLL_SECONDS = 5.0
MOST_REPLACED = 20
"""Maximum number of pods that are replaced during one rollout."""

_HASH = "rollouts-pod-template-hash"
_LAST_LINES = 50


def has_credentials(pod: Pod) -> bool:
    """Return whether EKS Pod Identity gave a pod a role when it was created."""
    containers = pod.spec.containers if pod.spec else []
    return any(variable.name == VARIABLE for container in containers for variable in container.env or ())


@contextmanager
def replacing_pods_without_credentials(namespace: str, rollout: str, log: Callable[[str], None]) -> Iterator[None]:
    """During the block, delete pods of a new release that Pod Identity was too late for. Argo Rollouts replaces them.

    Args:
        namespace, rollout: the Rollout.
        log: receives a line for each pod, from another thread.
    """
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(namespace, rollout, log, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=POLL_SECONDS)


def _watch(namespace: str, rollout: str, log: Callable[[str], None], ended: threading.Event) -> None:
    replaced = 0
    while replaced < MOST_REPLACED and not ended.wait(POLL_SECONDS):
        try:
            with connect(namespace) as client:
                for name in pods_without_credentials(client, rollout):
                    replace_pod(client, name, log)
                    replaced += 1
        except MlopsError as error:
            # The rollout is followed by others, who report an outage. A missing permission will not come.
            if not isinstance(error, _CannotReplaceError):
                continue
            log(str(error))
            return


class _CannotReplaceError(MlopsError):
    """The caller may not delete pods."""


def replace_pod(client: Client, name: str, log: Callable[[str], None]) -> None:
    """Delete a pod that has no credentials, if it still exists. Its ReplicaSet creates another one.

    Raises:
        MlopsError: the caller may not delete pods.
        ApiError: the cluster rejects the request.
    """
    try:
        write_with_retry(lambda: client.delete(Pod, name))
    except ApiError as error:
        if error.status.code == httpx2.codes.NOT_FOUND:
            return
        if error.status.code != httpx2.codes.FORBIDDEN:
            raise
        raise _CannotReplaceError(
            f"the pod {name} was created before EKS Pod Identity gave its service account a role, and you may not "
            "delete it",
            fix=f"kubectl -n {client.namespace} delete pod {name}",
        ) from None
    log(f"replaced the pod {name}: it was created before EKS Pod Identity gave its service account a role")


def pods_without_credentials(client: Client, rollout: str) -> list[str]:
    """Return the names of the pods of the newest release that failed because they have no credentials.

    A pod whose log cannot be read is not one of them.

    Args:
        client: client of the Rollout's namespace.
        rollout: name of the Rollout.
    """
    found = read_with_retry(lambda: client.get(Rollout, rollout)).to_dict()  # type: ignore[no-untyped-call]
    newest = (found.get("status") or {}).get("currentPodHash")
    if not newest:
        return []
    labels = {**found["spec"]["selector"]["matchLabels"], _HASH: newest}
    pods = read_with_retry(lambda: list(client.list(Pod, labels=labels)))
    return [
        str(pod.metadata.name)
        for pod in pods
        if pod.metadata
        and pod.metadata.deletionTimestamp is None
        and not has_credentials(pod)
        and _failed(pod)
        and _says_so(client, str(pod.metadata.name))
    ]


def _failed(pod: Pod) -> bool:
    """Return whether a container of a pod ended at least once."""
    statuses = (pod.status.containerStatuses if pod.status else None) or []
    return any(status.restartCount or (status.state and status.state.terminated) for status in statuses)


def _says_so(client: Client, pod: str) -> bool:
    try:
        return any(NO_CREDENTIALS in line for line in client.log(pod, tail_lines=_LAST_LINES))
    except httpx2.HTTPError:
        return False
