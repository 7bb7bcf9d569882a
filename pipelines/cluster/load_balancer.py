"""Wait until the load balancer of an endpoint sends its traffic to the pods that are live.

A new load balancer takes minutes until it is active and its name resolves, a target takes seconds until it is healthy,
and a change of weights takes effect later than it is written. This waits for what is not there yet, but not for what is
wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.cluster.connection import connect
from pipelines.cluster.load_balancer_facts import (
    FoundLoadBalancer,
    WantedLoadBalancer,
    found_load_balancer,
    resolves,
    wanted_load_balancer,
)
from pipelines.cluster.rollout_pods import ServingPod, live_pods
from pipelines.declarations.errors import MlopsError

POLL_SECONDS = 3.0

NAME_SECONDS = 180.0
"""Time to wait for the name alone. A machine without public DNS never resolves it, so that does not fail."""

DEADLINE_SECONDS = 900.0
"""Time to wait. A new Application Load Balancer takes two to five minutes, and its name can take longer to resolve."""

_ACTIVE = ("active", "active_impaired")


class NotYetError(MlopsError):
    """What AWS or Kubernetes does late has not happened yet. It is no sign that the release is wrong."""


@dataclass(frozen=True)
class LoadBalancerVerdict:
    """State of the load balancer of an endpoint.

    Attributes:
        waiting: what is not there yet, a line each.
        unresolved: that the name does not resolve yet, as a line; or "".
        wrong: what no waiting will change, a line each.
        unseen: what the caller cannot see, a line each.
    """

    waiting: tuple[str, ...] = ()
    unresolved: str = ""
    wrong: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def judge_load_balancer(
    wanted: WantedLoadBalancer, found: FoundLoadBalancer | None, pods: Sequence[ServingPod], *, name_resolves: bool
) -> LoadBalancerVerdict:
    """Judge whether a load balancer sends its traffic to the live pods.

    Args:
        wanted: what the Ingress asks for.
        found: what AWS has made of it; None if the caller cannot see it.
        pods: the ready pods of the live release.
        name_resolves: its DNS name, if it has one, can be looked up.
    """
    if not wanted.address:
        return LoadBalancerVerdict(waiting=("the load balancer has no address yet",))
    unresolved = "" if name_resolves else f"the name {wanted.address} does not resolve yet"
    if not wanted.is_elastic:
        unseen = f"{wanted.address} is not a load balancer of AWS: its listeners and targets cannot be seen"
        return LoadBalancerVerdict(unresolved=unresolved, unseen=(unseen,))
    if found is None:
        unseen = (
            "the load balancer cannot be seen: expected permission for elasticloadbalancing:Describe*; "
            "the readiness of the pods stands for it"
        )
        return LoadBalancerVerdict(unresolved=unresolved, unseen=(unseen,))
    if found.state == "failed":
        return LoadBalancerVerdict(wrong=("the load balancer could not be set up: its state is failed",))
    if found.state not in _ACTIVE:
        what = f"the load balancer is {found.state or 'not listed by AWS'}; expected active"
        return LoadBalancerVerdict((what,), unresolved=unresolved)
    waiting = [
        f"the load balancer has no listener on port {port} yet" for port in wanted.ports if port not in found.ports
    ]
    if not wanted.weights:
        waiting.append("Argo Rollouts has not set the traffic weights yet")
    for name, weight in wanted.weights.items():
        if found.weights.get(name, 0) != weight:
            waiting.append(f"weight of {name}: expected {weight}, found {found.weights.get(name, 'no rule')}")
    if not waiting:
        waiting += _unhealthy(wanted, found, pods)
    return LoadBalancerVerdict(tuple(waiting), unresolved=unresolved)


def _unhealthy(wanted: WantedLoadBalancer, found: FoundLoadBalancer, pods: Sequence[ServingPod]) -> list[str]:
    """Return why pods get no traffic, a line each."""
    targets = {
        address: health
        for name, weight in wanted.weights.items()
        if weight
        for address, health in found.targets.get(name, {}).items()
    }
    lines = [] if pods else ["no pod is ready yet"]
    for pod in pods:
        health = targets.get(pod.address)
        if health is None:
            lines.append(f"the pod {pod.name} is not registered with the load balancer yet")
        elif health.state != "healthy":
            why = f" ({health.reason})" if health.reason else ""
            lines.append(f"the load balancer finds the pod {pod.name} {health.state}{why}")
    return lines


def await_load_balancer(
    namespace: str, model: str, region: str, log: Callable[[str], None], *, deadline_seconds: float = DEADLINE_SECONDS
) -> None:
    """Wait until the load balancer of an endpoint sends its traffic to the pods that are live.

    Args:
        namespace: namespace of the endpoint.
        model: name of its Ingress and its Rollout.
        region: AWS region.
        log: receives what is waited for, whenever that changes, and what cannot be seen.
        deadline_seconds: how long to wait.

    Raises:
        NotYetError: it is not there yet at the deadline.
        MlopsError: the load balancer is wrong, the endpoint does not exist, or the cluster or AWS does not answer.
    """
    began, last = time.monotonic(), LoadBalancerVerdict()
    named: float | None = None
    said: list[str] = []
    with connect(namespace) as client:
        while True:
            wanted = wanted_load_balancer(client, model)
            verdict = judge_load_balancer(
                wanted,
                found_load_balancer(wanted.address, region) if wanted.is_elastic else None,
                live_pods(client, model),
                name_resolves=not wanted.address or resolves(wanted.address),
            )
            for line in verdict.unseen:
                if line not in last.unseen:
                    log(line)
            if verdict.wrong:
                raise MlopsError(
                    f"load balancer of {model} in {namespace}: {'; '.join(verdict.wrong)}", fix=_fix(model, namespace)
                )
            now = time.monotonic()
            if not verdict.waiting:
                named = now if named is None else named
                if not verdict.unresolved:
                    return
                if now - named > NAME_SECONDS:
                    log(f"the name {wanted.address} does not resolve on this machine: not verified")
                    return
            lines = [line for line in (*verdict.waiting, verdict.unresolved) if line]
            if now - began > deadline_seconds:
                raise NotYetError(
                    f"the load balancer of {model} in {namespace} is not there yet after {now - began:.0f} s: "
                    + "; ".join(lines),
                    fix=f"{_fix(model, namespace)}. Then deploy again: it goes on from here",
                )
            if lines != said:
                log(f"waiting: {'; '.join(lines)}")
            last, said = verdict, lines
            time.sleep(POLL_SECONDS)


def _fix(model: str, namespace: str) -> str:
    return f"see its events: kubectl -n {namespace} describe ingress {model}"
