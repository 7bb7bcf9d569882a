"""Argo Rollouts: wait until a release is live, and switch bundles at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource

from pipelines.cluster.connection import connect, read_with_retry
from pipelines.declarations.errors import MlopsError

Rollout = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")

POLL_SECONDS = 0.1

MOST_CONFLICTS = 50
"""Maximum number of attempts to change a Rollout while the controller changes it first."""


@dataclass(frozen=True)
class RolloutState:
    """Status of a Rollout.

    Attributes:
        phase: Healthy, Progressing, Paused or Degraded.
        message: reason for the phase, or "".
        weight: percentage of traffic to the canary pods.
        settled: the newest specification was observed and receives all traffic.
        failed: the newest specification was observed and aborted.
        moved: the newest specification was observed, and the load balancer sends all traffic to its pods.
    """

    phase: str
    message: str
    weight: int
    settled: bool
    failed: bool
    moved: bool


def rollout_state(resource: dict[str, Any]) -> RolloutState:
    """Read the state of a Rollout object."""
    status = resource.get("status") or {}
    observed = str(status.get("observedGeneration", "")) == str(resource["metadata"].get("generation"))
    phase = str(status.get("phase") or "Progressing")
    weights = (status.get("canary") or {}).get("weights") or {}
    weight = int((weights.get("canary") or {}).get("weight") or 0)
    current, stable = status.get("currentPodHash"), status.get("stableRS")
    settled = observed and phase == "Healthy" and current == stable and bool(current)
    # Until the controller observes the newest specification, the status is that of an earlier one.
    return RolloutState(
        phase,
        str(status.get("message") or ""),
        weight,
        settled,
        failed=observed and phase == "Degraded",
        moved=settled or (observed and weight == 100),
    )


def wait_for_rollout(
    namespace: str,
    name: str,
    *,
    on_change: Callable[[RolloutState], None],
    deadline_seconds: float,
) -> None:
    """Wait until the newest specification of a Rollout is live.

    Args:
        namespace, name: the Rollout.
        on_change: called with each new state.
        deadline_seconds: how long to wait.

    Raises:
        MlopsError: the Rollout does not exist, was aborted, or did not become healthy in time.
    """
    started, last = time.monotonic(), None
    with connect(namespace) as client:
        while True:
            try:
                resource = read_with_retry(lambda: client.get(Rollout, name))
                state = rollout_state(resource.to_dict())  # type: ignore[no-untyped-call]
            except ApiError as error:
                if error.status.code != 404:
                    raise
                raise MlopsError(f"no Rollout {name!r} in namespace {namespace!r}") from None
            if state != last:
                on_change(state)
                last = state
            if state.settled:
                return
            if state.failed:
                raise MlopsError(f"the rollout of {name} in {namespace} failed: {state.message}")
            if time.monotonic() - started > deadline_seconds:
                raise MlopsError(
                    f"the rollout of {name} in {namespace} was still {state.phase} after {deadline_seconds:.0f} s"
                    + (f": {state.message}" if state.message else ""),
                    fix=f"kubectl -n {namespace} describe rollout {name}",
                )
            time.sleep(POLL_SECONDS)


def serve_bundle(namespace: str, name: str, wanted: str) -> None:
    """Make a Rollout serve another bundle at once. A bundle in the rollback window skips the canary steps.

    The pod template becomes what the Pulumi program would write for that bundle. Idempotent.

    Args:
        namespace, name: the Rollout.
        wanted: digest of the bundle to serve.

    Raises:
        MlopsError: the Rollout does not exist or serves no bundle, or the cluster rejects the change.
    """
    with connect(namespace) as client:
        for _ in range(MOST_CONFLICTS):
            try:
                resource = client.get(Rollout, name).to_dict()  # type: ignore[no-untyped-call]
            except ApiError as error:
                if error.status.code != 404:
                    raise
                raise MlopsError(f"no Rollout {name!r} in namespace {namespace!r}") from None
            changed = renamed_bundle(resource, wanted)
            if changed == resource:
                return
            try:
                client.replace(Rollout.from_dict(changed))
                return
            except ApiError as error:
                # The controller updated the status first: read again.
                if error.status.code != 409:
                    raise
        raise MlopsError(
            f"the Rollout {name!r} in namespace {namespace!r} is busy: {MOST_CONFLICTS} changes conflicted with the "
            "controller",
            fix="try again later",
        )


def renamed_bundle(resource: dict[str, Any], wanted: str) -> dict[str, Any]:
    """Return a Rollout with every mention of its bundle replaced.

    Args:
        resource: the Rollout.
        wanted: digest of the new bundle; labels hold its first 16 hexadecimal digits.

    Raises:
        MlopsError: the Rollout serves no bundle.
    """
    live = bundle_of(resource)
    names = {live: wanted, live.removeprefix("sha256:")[:16]: wanted.removeprefix("sha256:")[:16]}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    metadata = dict(resource["metadata"])
    if "annotations" in metadata:
        metadata["annotations"] = renamed(metadata["annotations"])
    return {**resource, "metadata": metadata, "spec": renamed(resource["spec"])}


def bundle_of(resource: dict[str, Any]) -> str:
    """Return the digest of the bundle that a Rollout serves: the `--bundle` argument of its containers.

    Raises:
        MlopsError: no container has the argument.
    """
    for container in resource["spec"].get("template", {}).get("spec", {}).get("containers", ()):
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        if "--bundle" in words[:-1]:
            return str(words[words.index("--bundle") + 1])
    raise MlopsError(
        f"the Rollout {resource['metadata'].get('name')!r} serves no bundle: expected --bundle in its command"
    )
