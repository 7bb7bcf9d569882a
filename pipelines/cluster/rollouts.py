"""Follow an Argo Rollout until what was asked for is live."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource

from pipelines.cluster.connection import ask, connect
from pipelines.declarations.errors import MlopsError

Rollout = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")

POLL_SECONDS = 0.1

MOST_CONFLICTS = 50
"""How often a change is made anew because the controller was faster."""


@dataclass(frozen=True)
class RolloutState:
    """What a Rollout says of itself.

    Attributes:
        phase: Healthy, Progressing, Paused or Degraded.
        message: why, if it says so.
        weight: percent of the traffic that goes to the new pods.
        settled: the newest specification has been seen, and all of the traffic goes to it.
        failed: the newest specification has been seen, and given up.
    """

    phase: str
    message: str
    weight: int
    settled: bool
    failed: bool


def rollout_state(resource: dict[str, Any]) -> RolloutState:
    """Read the state out of a Rollout object."""
    status = resource.get("status") or {}
    observed = str(status.get("observedGeneration", "")) == str(resource["metadata"].get("generation"))
    phase = str(status.get("phase") or "Progressing")
    weights = (status.get("canary") or {}).get("weights") or {}
    weight = int((weights.get("canary") or {}).get("weight") or 0)
    current, stable = status.get("currentPodHash"), status.get("stableRS")
    settled = observed and phase == "Healthy" and current == stable and bool(current)
    # What an earlier specification came to is said until the controller has seen the newest.
    return RolloutState(phase, str(status.get("message") or ""), weight, settled, observed and phase == "Degraded")


def wait_for_rollout(
    namespace: str,
    name: str,
    *,
    on_change: Callable[[RolloutState], None],
    deadline_seconds: float,
) -> None:
    """Wait until the Rollout's newest specification is live.

    Args:
        namespace, name: of the Rollout.
        on_change: called with each new state.
        deadline_seconds: how long to wait.

    Raises:
        MlopsError: there is none, it was aborted, or it did not become healthy in time.
    """
    started, last = time.monotonic(), None
    with connect(namespace) as client:
        while True:
            try:
                resource = ask(lambda: client.get(Rollout, name))
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
    """Make a Rollout serve another bundle, at once: the one before lies in its rollback window and skips the steps.

    Everything in the pods' template that names the bundle names the wanted one afterwards, as the program would have
    written it. Doing it twice changes nothing.

    Args:
        namespace, name: of the Rollout.
        wanted: digest of the bundle that it is to serve.

    Raises:
        MlopsError: there is no such Rollout, it serves no bundle, or the cluster refuses.
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
                # The controller wrote its status in between: read again.
                if error.status.code != 409:
                    raise
        raise MlopsError(f"the Rollout {name!r} in namespace {namespace!r} was changed by others all the time")


def renamed_bundle(resource: dict[str, Any], wanted: str) -> dict[str, Any]:
    """A Rollout as it is, with every mention of its bundle replaced by another.

    Args:
        resource: the Rollout.
        wanted: digest; labels hold its first 16 hexadecimal digits.

    Raises:
        MlopsError: it names no bundle.
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
    """The digest of the bundle that the pods of a Rollout serve: what follows `--bundle` in their command.

    Raises:
        MlopsError: there is none.
    """
    for container in resource["spec"].get("template", {}).get("spec", {}).get("containers", ()):
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        if "--bundle" in words[:-1]:
            return str(words[words.index("--bundle") + 1])
    raise MlopsError(f"the pods of the Rollout {resource['metadata'].get('name')!r} serve no bundle")
