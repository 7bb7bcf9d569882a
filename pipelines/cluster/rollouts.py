"""Argo Rollouts: wait until a release is live, switch bundles at once, and abort a canary.

The program and these functions change a Rollout as one field manager. So the API server sees one owner of each field,
and neither takes fields from the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

from pipelines.cluster.applied_fields import managers_of_field, owned_by
from pipelines.cluster.connection import connect, read_with_retry, write_with_retry
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER

Rollout = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")

POLL_SECONDS = 0.1

MOST_CONFLICTS = 50
"""Maximum number of attempts to change a Rollout while the controller changes it first."""

MOST_RETURNS = 5
"""Maximum number of times that a bundle is applied again because another process took it back."""

_INCONCLUSIVE = "InconclusiveAnalysisRun"
"""Reason of a pause. Argo Rollouts ends it only if a person promotes or aborts the rollout."""

BUNDLE_ANNOTATION = ("metadata", "annotations", "mlops/bundle")
"""Field that shows which manager applies the Rollout."""


class OvertakenError(MlopsError):
    """The Rollout serves another bundle than the one that was waited for: another command changed it."""


class FailedRolloutError(MlopsError):
    """The controller aborted a rollout: a canary check failed, or the new pods did not become ready in time."""


class InconclusiveCanaryError(MlopsError):
    """A canary check ended without a verdict, so the rollout is paused. The canary keeps its share of the traffic."""


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
        on_trial: the newest specification was observed, and other pods are the stable ones.
        inconclusive: a canary check of the newest specification ended without a verdict, so the controller waits for a
            person.
    """

    phase: str
    message: str
    weight: int
    settled: bool
    failed: bool
    moved: bool
    on_trial: bool = False
    inconclusive: bool = False


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
        on_trial=observed and bool(current) and bool(stable) and current != stable,
        inconclusive=observed
        and any(pause.get("reason") == _INCONCLUSIVE for pause in status.get("pauseConditions") or ()),
    )


def wait_for_rollout(
    namespace: str,
    name: str,
    bundle: str,
    *,
    on_change: Callable[[RolloutState], None],
    deadline_seconds: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until a Rollout has taken a bundle live.

    Args:
        namespace, name: the Rollout.
        bundle: digest of the bundle that its specification names.
        on_change: called with each new state.
        deadline_seconds: how long to wait.
        check: called before each look; what it raises ends the wait.

    Raises:
        OvertakenError: its specification names another bundle.
        InconclusiveCanaryError: a canary check had no verdict.
        FailedRolloutError: the controller aborted it.
        MlopsError: the Rollout does not exist, or did not become healthy in time.
    """
    started, last = time.monotonic(), None
    with connect(namespace) as client:
        while True:
            check()
            resource = _read(client, name)
            _check_bundle(resource, bundle)
            state = rollout_state(resource)
            if state != last:
                on_change(state)
                last = state
            if state.settled:
                return
            if state.failed:
                raise FailedRolloutError(f"the rollout of {name} in {namespace} failed: {state.message}")
            if state.inconclusive:
                raise InconclusiveCanaryError(
                    f"the rollout of {name} in {namespace} is paused: its canary check neither passed nor failed",
                    fix="deploy again to check it for longer, or stop it: see docs/on-call.md",
                )
            _check_time(client, name, state, started, deadline_seconds)
            time.sleep(POLL_SECONDS)


def switch_bundle(
    namespace: str,
    name: str,
    wanted: str,
    *,
    on_change: Callable[[RolloutState], None],
    deadline_seconds: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make a Rollout serve a bundle at once, without traffic steps and canary analysis, and wait until it does.

    The pod template becomes what the Pulumi program would write for that bundle. Then the controller is asked for a
    full promotion: as soon as the pods are ready, all traffic goes to them. Idempotent. If another process changes the
    bundle meanwhile, it is changed back.

    Args:
        namespace, name: the Rollout.
        wanted: digest of the bundle to serve.
        on_change: called with each new state.
        deadline_seconds: how long to wait.
        check: called before each look; what it raises ends the wait.

    Raises:
        OvertakenError: another process keeps changing the bundle.
        MlopsError: the Rollout does not exist or serves no bundle, the cluster rejects the change, the new pods failed,
            or the deadline passed.
    """
    started, last = time.monotonic(), None
    applied, promoted, is_recovering = 0, False, False
    with connect(namespace) as client:
        while True:
            check()
            resource = _read(client, name)
            if bundle_of(resource) != wanted:
                if applied > MOST_RETURNS:
                    _check_bundle(resource, wanted)
                _apply_bundle(client, name, wanted)
                applied, promoted, is_recovering = applied + 1, False, False
                continue
            state = rollout_state(resource)
            if state != last:
                on_change(state)
                last = state
            if state.settled:
                return
            is_recovering = is_recovering and state.failed
            if state.failed and promoted and not is_recovering:
                raise MlopsError(f"the pods of {wanted} in {namespace} did not start: {state.message}")
            if state.on_trial and not (resource.get("status") or {}).get("promoteFull"):
                # An aborted trial of this very bundle is Degraded until the controller takes up the promotion.
                if _change_status(client, resource, {"promoteFull": True}):
                    promoted, is_recovering = True, state.failed
                continue
            _check_time(client, name, state, started, deadline_seconds)
            time.sleep(POLL_SECONDS)


def check_canary_again(namespace: str, name: str, bundle: str) -> bool:
    """Let the controller check a canary again that it paused without a verdict. Idempotent.

    Returns:
        False if the rollout is not paused for this reason, or serves another bundle.

    Raises:
        MlopsError: the Rollout does not exist, or the cluster rejects the change.
    """
    with connect(namespace) as client:
        for _ in range(MOST_CONFLICTS):
            resource = _read(client, name)
            if bundle_of(resource) != bundle or not rollout_state(resource).inconclusive:
                return False
            if _change_status(client, resource, {"pauseConditions": None}):
                return True
    raise _busy(namespace, name)


def abort_rollout(namespace: str, name: str, bundle: str) -> bool:
    """Abort the trial of a bundle: the controller returns all traffic to the stable pods. Idempotent.

    Args:
        namespace, name: the Rollout.
        bundle: digest of the bundle on trial.

    Returns:
        False if the bundle is not on trial: another one is, or it already has all traffic.

    Raises:
        MlopsError: the Rollout does not exist, or the cluster rejects the change.
    """
    with connect(namespace) as client:
        for _ in range(MOST_CONFLICTS):
            resource = _read(client, name)
            status = resource.get("status") or {}
            if bundle_of(resource) != bundle:
                return False
            current, stable = status.get("currentPodHash"), status.get("stableRS")
            is_observed = str(status.get("observedGeneration", "")) == str(resource["metadata"].get("generation"))
            if is_observed and (current == stable or not stable):
                return False
            if is_observed and status.get("abort"):
                return True
            if is_observed and _change_status(client, resource, {"abort": True}):
                return True
            time.sleep(POLL_SECONDS)
    raise _busy(namespace, name)


def served_bundle(namespace: str, name: str) -> str | None:
    """Return the bundle that the specification of a Rollout names; None if there is no such Rollout.

    Raises:
        MlopsError: it serves no bundle, or the cluster rejects the request.
    """
    with connect(namespace) as client:
        try:
            return bundle_of(read_with_retry(lambda: client.get(Rollout, name)).to_dict())  # type: ignore[no-untyped-call]
        except ApiError as error:
            if error.status.code != 404:
                raise
            return None


def try_change(namespace: str, name: str, wanted: str) -> None:
    """Let the API server check the change to another bundle, without making it.

    Raises:
        MlopsError: the change would be rejected.
    """
    with connect(namespace) as client:
        _apply_bundle(client, name, wanted, dry_run=True)


def _apply_bundle(client: Client, name: str, wanted: str, *, dry_run: bool = False) -> None:
    """Change the bundle by server-side apply, with exactly the fields that the program's field manager owns."""
    for _ in range(MOST_CONFLICTS):
        resource = _read(client, name)
        managers = managers_of_field(resource, BUNDLE_ANNOTATION)
        manager = ROLLOUT_FIELD_MANAGER if ROLLOUT_FIELD_MANAGER in managers else next(iter(managers), "")
        owned = owned_by(resource, manager)
        if owned is None:
            raise MlopsError(
                f"field manager of the Rollout {name!r} in namespace {client.namespace!r}: expected "
                f"{ROLLOUT_FIELD_MANAGER!r}, found none that applies its bundle",
                fix=f"kubectl -n {client.namespace} get rollout {name} --show-managed-fields -o yaml",
            )
        change = renamed_bundle({**owned, "spec": owned.get("spec") or {}}, wanted)
        change["metadata"]["resourceVersion"] = resource["metadata"]["resourceVersion"]
        is_foreign = manager != ROLLOUT_FIELD_MANAGER
        try:
            _apply(client, change, ROLLOUT_FIELD_MANAGER, force=is_foreign, dry_run=dry_run)
        except ApiError as error:
            # The controller updated the status first: read again. A conflict about fields stays one.
            if error.status.code != 409 or _is_about_fields(error):
                raise
            time.sleep(POLL_SECONDS)
            continue
        if is_foreign and not dry_run:
            # It was applied before the program named its field manager. As Pulumi does, let that manager own nothing.
            names = {key: change["metadata"][key] for key in ("name", "namespace")}
            nothing = {"apiVersion": change["apiVersion"], "kind": change["kind"], "metadata": names}
            _apply(client, nothing, manager)
        return
    raise _busy(client.namespace, name)


def _apply(
    client: Client, manifest: dict[str, Any], manager: str, *, force: bool = False, dry_run: bool = False
) -> None:
    write_with_retry(
        lambda: client.patch(
            Rollout,
            manifest["metadata"]["name"],
            manifest,
            patch_type=PatchType.APPLY,
            field_manager=manager,
            force=force,
            dry_run=dry_run,
        )
    )


def _change_status(client: Client, resource: dict[str, Any], change: dict[str, Any]) -> bool:
    """Patch the status of a Rollout as it was read; return False if it has changed since."""
    version = resource["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "status": change}
    try:
        name = resource["metadata"]["name"]
        write_with_retry(lambda: client.patch(Rollout.Status, name, patch, patch_type=PatchType.MERGE))
    except ApiError as error:
        if error.status.code != 409:
            raise
        return False
    return True


def _read(client: Client, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_with_retry(lambda: client.get(Rollout, name)).to_dict()  # type: ignore[no-untyped-call]
    except ApiError as error:
        if error.status.code != 404:
            raise
        raise MlopsError(f"no Rollout {name!r} in namespace {client.namespace!r}") from None
    return found


def _check_bundle(resource: dict[str, Any], wanted: str) -> None:
    found = bundle_of(resource)
    if found != wanted:
        metadata = resource["metadata"]
        raise OvertakenError(
            f"bundle of the Rollout {metadata.get('name')} in {metadata.get('namespace')}: expected {wanted}, found "
            f"{found}; another command changed it"
        )


def _check_time(client: Client, name: str, state: RolloutState, started: float, deadline_seconds: float) -> None:
    if time.monotonic() - started > deadline_seconds:
        raise MlopsError(
            f"the rollout of {name} in {client.namespace} was still {state.phase} after {deadline_seconds:.0f} s"
            + (f": {state.message}" if state.message else ""),
            fix=f"kubectl -n {client.namespace} describe rollout {name}",
        )


def _is_about_fields(error: ApiError) -> bool:
    details = error.status.details
    return any(cause.reason == "FieldManagerConflict" for cause in (details.causes if details else None) or ())


def _busy(namespace: str, name: str) -> MlopsError:
    return MlopsError(
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
