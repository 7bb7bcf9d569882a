"""Application load balancers as AWS runs them: active, resolvable and healthy only after a while.

Pure state over a clock. Sources: Elastic Load Balancing user guide ("Health checks for your target groups"), and the
AWS Load Balancer Controller ("Pod readiness gate").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from laptop.cluster.objects import Object, annotations_of, name_of, namespace_of, uid_of
from laptop.cluster.routes import ACTIONS, PodAddress
from laptop.delays import Delays

Clock = Callable[[], float]
"""Returns seconds; only differences count."""

GATE = "target-health.elbv2.k8s.aws/"
"""Prefix of the pod conditions that the AWS Load Balancer Controller sets."""

DOMAIN = "elb.amazonaws.com"

HEALTHY, INITIAL, DRAINING = "healthy", "initial", "draining"

INTERNET = "internet"
"""Resolver of programs outside of the private network, such as runners."""

_NEVER = float("inf")


@dataclass
class _Balancer:
    created: float
    hostname: str
    hosts: tuple[str, ...] = ()
    certificate: str = ""
    names: tuple[str, ...] = ()
    actions: list[tuple[float, dict[str, str]]] = field(default_factory=list)


@dataclass
class _RegisteredTarget:
    address: PodAddress
    since: float
    leaving: float | None = None


class LoadBalancers:
    """State of all load balancers of the cluster.

    Args:
        delays: delays of the laptop.
        clock: the clock.
        faults: returns the faults that the laptop has now; see `laptop.faults`.
    """

    def __init__(self, delays: Delays, clock: Clock, faults: Callable[[], Collection[str]] = tuple) -> None:
        self._delays = delays
        self._clock = clock
        self._faults = faults
        self._began: dict[str, float] = {}
        self._balancers: dict[str, _Balancer] = {}
        self._targets: dict[tuple[str, str], dict[str, _RegisteredTarget]] = {}
        self._no_such_name: dict[tuple[str, str], float] = {}

    # Load balancers

    def see(self, ingress: Object, region: str) -> str:
        """Note an Ingress and its annotations, and return the DNS name of its load balancer."""
        self._note_faults()
        known = self._balancers.get(uid_of(ingress))
        if known is None:
            known = self._balancers[uid_of(ingress)] = _Balancer(self._clock(), hostname_of(ingress, region))
        known.hosts = hosts_of(ingress)
        actions = _actions_of(ingress)
        if not known.actions or known.actions[-1][1] != actions:
            known.actions.append((self._clock(), actions))
        return known.hostname

    def forget(self, uid: str) -> None:
        """Remove the load balancer of a deleted Ingress."""
        self._balancers.pop(uid, None)

    def seconds_to_active(self, uid: str) -> float:
        """Return the seconds until a load balancer is active; 0 if it is."""
        return self._seconds_to(self._balancers[uid].created + self._delays["load-balancer"], "load-balancer-stuck")

    def is_active(self, uid: str) -> bool:
        """Return whether the listener of a load balancer answers."""
        return uid in self._balancers and not self.seconds_to_active(uid)

    def find(self, hostname: str) -> str | None:
        """Return the uid of the Ingress to whose load balancer a DNS name leads, or None.

        The host names in the rules of an Ingress lead there, too, as if external-dns had written their records.
        """
        name = hostname.lower()
        return next((uid for uid, one in self._balancers.items() if name in (one.hostname, *one.hosts)), None)

    def certify(self, uid: str, certificate: str, names: Iterable[str]) -> None:
        """Give the HTTPS listener of a load balancer its certificate.

        Args:
            uid: uid of the Ingress.
            certificate: ARN of the certificate.
            names: host names that it is for.
        """
        if uid in self._balancers:
            self._balancers[uid].certificate, self._balancers[uid].names = certificate, tuple(names)

    def certificate(self, uid: str) -> tuple[str, tuple[str, ...]]:
        """Return the ARN of the certificate of a load balancer and the names that it is for; "" without one."""
        known = self._balancers.get(uid)
        return ("", ()) if known is None else (known.certificate, known.names)

    def resolve(self, hostname: str, resolver: str = "") -> bool:
        """Return whether a DNS name exists for a resolver, which caches that it does not.

        Args:
            hostname: the name.
            resolver: each has a cache of its own.
        """
        now, key = self._clock(), (resolver, hostname.lower())
        if resolver == INTERNET and "dns-gone" in self._faults():
            return False
        if self._no_such_name.get(key, now) > now:
            return False
        uid = self.find(hostname)
        if uid is not None and now >= self._balancers[uid].created + self._delays["dns"]:
            return True
        self._no_such_name[key] = now + self._delays["dns-negative-cache"]
        return False

    def in_force(self, ingress: Object) -> Object:
        """Return an Ingress with the annotations of actions that are in force, which may be earlier ones."""
        known = self._balancers.get(uid_of(ingress))
        if known is None:
            return ingress
        due = self._clock() - self._delays["weights"]
        while len(known.actions) > 1 and known.actions[1][0] <= due:
            del known.actions[0]
        others = {key: value for key, value in annotations_of(ingress).items() if not key.startswith(ACTIONS)}
        metadata = {**ingress["metadata"], "annotations": {**others, **known.actions[0][1]}}
        return {**ingress, "metadata": metadata}

    # Targets

    def register(self, namespace: str, service: str, addresses: Iterable[PodAddress]) -> None:
        """Make these pods the targets of a Service. Others leave after a while."""
        self._note_faults()
        now, wanted = self._clock(), {address.uid: address for address in addresses}
        known = self._targets.setdefault((namespace, service), {})
        for uid, address in wanted.items():
            if uid not in known or known[uid].leaving is not None:
                known[uid] = _RegisteredTarget(address, now)
        for uid, target in known.items():
            if uid not in wanted and target.leaving is None:
                target.leaving = now
        gone = now - self._delays["target-deregistration"]
        for uid in [uid for uid, target in known.items() if target.leaving is not None and target.leaving <= gone]:
            del known[uid]

    def is_target(self, namespace: str, service: str, uid: str) -> bool:
        """Return whether a pod is or was a target of a Service."""
        return uid in self._targets.get((namespace, service), {})

    def health(self, namespace: str, service: str, uid: str, balancers: Iterable[str]) -> str:
        """Return the state of a target: healthy, initial or draining; "" if it is not registered.

        Args:
            namespace, service: the Service.
            uid: uid of the pod.
            balancers: uids of the Ingresses that forward to the Service. Health checks start when one is active.
        """
        target = self._targets.get((namespace, service), {}).get(uid)
        if target is None:
            return ""
        if target.leaving is not None:
            return DRAINING
        return INITIAL if self.seconds_to_healthy(namespace, service, uid, balancers) else HEALTHY

    def seconds_to_healthy(self, namespace: str, service: str, uid: str, balancers: Iterable[str]) -> float:
        """Return the seconds until a registered target is healthy; 0 if it is. Arguments are those of `health`."""
        target = self._targets[namespace, service][uid]
        active = [
            self._balancers[each].created + self._delays["load-balancer"]
            for each in balancers
            if self.seconds_to_active(each) != _NEVER
        ]
        if not active:
            return _NEVER
        return self._seconds_to(max(target.since, min(active)) + self._delays["target-health"], "targets-stuck")

    def _seconds_to(self, due: float, fault: str) -> float:
        """Return the seconds until something that is due at a time has happened; 0 if it has.

        While the laptop has the fault, only what was due before it has happened.
        """
        self._note_faults()
        if fault not in self._began:
            return max(0.0, due - self._clock())
        return 0.0 if due <= self._began[fault] else _NEVER

    def _note_faults(self) -> None:
        """Record when each fault began. Called before anything is created, so that this is due after the fault."""
        now, faults = self._clock(), self._faults()
        self._began = {fault: self._began.get(fault, now) for fault in faults}

    def seconds_to_gone(self, namespace: str, service: str) -> list[float]:
        """Return the seconds until each leaving target of a Service is gone."""
        last = self._clock() - self._delays["target-deregistration"]
        found = self._targets.get((namespace, service), {}).values()
        return [max(0.0, target.leaving - last) for target in found if target.leaving is not None]

    def routable(self, namespace: str, service: str, balancers: Iterable[str]) -> list[PodAddress]:
        """Return the targets that get requests: healthy ones, and those that the load balancer does not know to leave.

        Arguments are those of `health`.
        """
        chosen, last = list(balancers), self._clock() - self._delays["target-deregistration"]
        return [
            target.address
            for uid, target in self._targets.get((namespace, service), {}).items()
            if (target.leaving is not None and target.leaving > last)
            or (target.leaving is None and not self.seconds_to_healthy(namespace, service, uid, chosen))
        ]


def hostname_of(ingress: Object, region: str) -> str:
    """Return the DNS name of the internal load balancer of an Ingress."""
    digest = hashlib.sha256(uid_of(ingress).encode()).hexdigest()
    name = f"k8s-{_short(namespace_of(ingress))}-{_short(name_of(ingress))}-{digest[:10]}"
    return f"internal-{name}-{int(digest[10:18], 16)}.{region}.{DOMAIN}".lower()


def hosts_of(ingress: Object) -> tuple[str, ...]:
    """Return the host names in the rules of an Ingress, in lower case."""
    rules = ingress["spec"].get("rules") or ()
    return tuple(dict.fromkeys(str(rule["host"]).lower() for rule in rules if rule.get("host")))


def gate_of(namespace: str, service: str) -> str:
    """Return the condition type of the readiness gate for a Service, whose TargetGroupBinding it names."""
    digest = hashlib.sha256(f"{namespace}/{service}".encode()).hexdigest()
    return f"{GATE}k8s-{_short(namespace)}-{_short(service)}-{digest[:10]}"


def _short(name: str) -> str:
    return "".join(letter for letter in name if letter.isalnum())[:8]


def _actions_of(ingress: Object) -> dict[str, str]:
    annotations = annotations_of(ingress)
    return {key: value for key, value in annotations.items() if key.startswith(ACTIONS)}
