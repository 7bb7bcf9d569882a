"""What Elastic Load Balancing would say about the load balancers of the cluster; the account serves it."""

from __future__ import annotations

import json
from typing import Any

from laptop.cluster.alb import HEALTHY, INITIAL, LoadBalancers
from laptop.cluster.kinds import INGRESS, POD
from laptop.cluster.objects import Object, ObjectStore, annotations_of, name_of, namespace_of, uid_of
from laptop.cluster.routes import ACTIONS, listeners_of

_REASONS = {INITIAL: "Elb.InitialHealthChecking", "draining": "Target.DeregistrationInProgress"}


def describe_balancers(store: ObjectStore, balancers: LoadBalancers) -> list[dict[str, Any]]:
    """Return each load balancer: its name, state, listeners, target groups with weights, and targets.

    Args:
        store: objects of the cluster.
        balancers: their state.
    """
    return [_describe(store, balancers, ingress) for ingress in store.find_all(INGRESS)]


def _describe(store: ObjectStore, balancers: LoadBalancers, ingress: Object) -> dict[str, Any]:
    entries = (ingress.get("status") or {}).get("loadBalancer", {}).get("ingress") or [{}]
    certificate, _ = balancers.certificate(uid_of(ingress))
    # Without a certificate, the AWS Load Balancer Controller cannot make an HTTPS listener.
    listeners = [each for each in listeners_of(ingress) if each[0] != "HTTPS" or certificate]
    return {
        "dnsName": entries[0].get("hostname", ""),
        "state": "active" if balancers.is_active(uid_of(ingress)) else "provisioning",
        "listeners": listeners,
        "certificate": certificate,
        "groups": [_group(store, balancers, ingress, group) for group in _groups(balancers.in_force(ingress))],
    }


def _groups(ingress: Object) -> list[dict[str, Any]]:
    """Return the target groups of the annotations of actions."""
    found: list[dict[str, Any]] = []
    for key, text in annotations_of(ingress).items():
        if key.startswith(ACTIONS):
            found += json.loads(text)["ForwardConfig"]["TargetGroups"]
    return found


def _group(store: ObjectStore, balancers: LoadBalancers, ingress: Object, group: dict[str, Any]) -> dict[str, Any]:
    namespace, service = namespace_of(ingress), str(group["ServiceName"])
    targets = []
    for pod in store.find_all(POD, namespace):
        state = balancers.health(namespace, service, uid_of(pod), [uid_of(ingress)])
        address = (pod.get("status") or {}).get("podIP")
        if state and address:
            reason = {} if state == HEALTHY else {"reason": _REASONS[state]}
            targets.append({"address": address, "state": state, **reason})
    return {
        "resource": f"{namespace}/{name_of(ingress)}-{service}:{group['ServicePort']}",
        "weight": int(group["Weight"]),
        "targets": targets,
    }
