"""ResourceQuotas: what the pods of a namespace may use together, as Kubernetes admits pods and shows what is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from laptop.cluster.controller import Controller
from laptop.cluster.kinds import POD, RESOURCE_QUOTA
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of

COMPUTE = {
    "cpu": ("requests", "cpu"),
    "memory": ("requests", "memory"),
    "requests.cpu": ("requests", "cpu"),
    "requests.memory": ("requests", "memory"),
    "limits.cpu": ("limits", "cpu"),
    "limits.memory": ("limits", "memory"),
}
"""Name in a quota → part of a container's resources, and the resource."""

PODS = "pods"
ENFORCED = (PODS, *COMPUTE)
"""Names in quotas that this cluster enforces."""

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_ENDED = ("Succeeded", "Failed")

Amounts = dict[str, Decimal]


def refusal(quotas: Iterable[Object], pods: Iterable[Object], spec: Mapping[str, Any]) -> str | None:
    """Return why quotas refuse a new pod, in Kubernetes' words; None if they admit it.

    Args:
        quotas: the quotas of the namespace.
        pods: the pods of the namespace.
        spec: specification of the new pod.
    """
    now = list(pods)
    for quota in sorted(quotas, key=name_of):
        hard = _hard(quota)
        missing = [f"{name} for: {', '.join(names)}" for name, names in _unstated(hard, spec)]
        if missing:
            return f"failed quota: {name_of(quota)}: must specify {'; '.join(missing)}"
        asked, used = used_by([spec], hard), used_by(_specs(now), hard)
        over = sorted(name for name in hard if asked[name] + used[name] > hard[name])
        if over:
            parts = (("requested", asked), ("used", used), ("limited", hard))
            shown = (
                f"{what}: " + ",".join(f"{name}={text(name, each[name])}" for name in over) for what, each in parts
            )
            return f"exceeded quota: {name_of(quota)}, {', '.join(shown)}"
    return None


def used_by(specs: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Amounts:
    """Return how much pods use of what a quota names."""
    found = dict.fromkeys(names, Decimal(0))
    for spec in specs:
        for name in found:
            found[name] += 1 if name == PODS else _of_pod(spec, *COMPUTE[name])
    return found


def quantity(value: Any) -> Decimal:
    """Return a quantity as a number: `500m` is 0.5, `2Gi` is 2147483648."""
    given = str(value)
    for suffix, factor in _BINARY.items():
        if given.endswith(suffix):
            return Decimal(given.removesuffix(suffix)) * factor
    if given[-1:] in _DECIMAL:
        return Decimal(given[:-1]).scaleb(_DECIMAL[given[-1]])
    return Decimal(given)


def text(name: str, amount: Decimal) -> str:
    """Return an amount as a quantity: memory by powers of two, other amounts whole or in thousandths."""
    if name.endswith("memory"):
        for suffix, factor in reversed(_BINARY.items()):
            if amount and amount % factor == 0:
                return f"{int(amount / factor)}{suffix}"
    whole = amount == amount.to_integral_value()
    return str(int(amount)) if whole else f"{int(amount * 1000)}m"


class ResourceQuotas(Controller):
    """Shows in the status of quotas what their namespace uses."""

    kind = RESOURCE_QUOTA

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the quotas of the namespace of a pod that changed."""
        if event.kind is not POD:
            return []
        place = namespace_of(event.object)
        return [(place, name_of(quota)) for quota in self._store.find_all(RESOURCE_QUOTA, place)]

    def reconcile(self, obj: Object) -> None:
        """Write what is used into the status of a quota."""
        hard = (obj.get("spec") or {}).get("hard") or {}
        used = used_by(_specs(self._store.find_all(POD, namespace_of(obj))), hard)
        status = {"hard": dict(hard), "used": {name: text(name, amount) for name, amount in used.items()}}
        if obj.get("status") != status:
            self._store.modify(RESOURCE_QUOTA, obj, lambda target: target.update(status=status))


def refusal_in(store: ObjectStore, namespace: str, spec: Mapping[str, Any]) -> str | None:
    """Return why the quotas of a namespace refuse a new pod; None if they admit it."""
    quotas = store.find_all(RESOURCE_QUOTA, namespace)
    return refusal(quotas, store.find_all(POD, namespace), spec) if quotas else None


def _hard(quota: Object) -> Amounts:
    """Return the limits of a quota. As on Kubernetes, they hold once its controller has seen the quota."""
    return {name: quantity(value) for name, value in ((quota.get("status") or {}).get("hard") or {}).items()}


def _specs(pods: Iterable[Object]) -> list[Mapping[str, Any]]:
    """Return the specifications of the pods that have not ended."""
    return [pod["spec"] for pod in pods if (pod.get("status") or {}).get("phase") not in _ENDED]


def _of_pod(spec: Mapping[str, Any], part: str, resource: str) -> Decimal:
    """Return what the containers of a pod ask for together, or an init container alone if that is more."""
    own = sum((_of_container(each, part, resource) for each in spec.get("containers") or ()), Decimal(0))
    return max([own, *(_of_container(each, part, resource) for each in spec.get("initContainers") or ())])


def _of_container(container: Mapping[str, Any], part: str, resource: str) -> Decimal:
    return quantity(_stated(container, part, resource) or "0")


def _stated(container: Mapping[str, Any], part: str, resource: str) -> Any:
    """Return an amount that a container states. A request that is not stated is that of the limit."""
    resources = container.get("resources") or {}
    found = (resources.get(part) or {}).get(resource)
    return (resources.get("limits") or {}).get(resource) if found is None and part == "requests" else found


def _unstated(names: Iterable[str], spec: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what a quota limits and containers do not state, with these containers."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for name in sorted(names):
        if name in COMPUTE:
            lacking = sorted(each["name"] for each in containers if _stated(each, *COMPUTE[name]) is None)
            if lacking:
                yield name, lacking
