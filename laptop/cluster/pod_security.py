"""The `restricted` Pod Security Standard (kubernetes.io/docs/concepts/security/pod-security-standards)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

ENFORCE = "pod-security.kubernetes.io/enforce"
ENFORCE_VERSION = "pod-security.kubernetes.io/enforce-version"

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = ("RuntimeDefault", "Localhost")

PodSpec = dict[str, Any]
Container = dict[str, Any]


def violations(pod_spec: PodSpec) -> list[str]:
    """Return the violations of the `restricted` standard in a pod spec, in Kubernetes' words; [] if there are none."""
    checks = (_namespaces, _host_ports, _privileged, _escalation, _capabilities, _volumes, _non_root, _user, _seccomp)
    return [found for check in checks for found in check(pod_spec)]


def _containers(pod: PodSpec) -> list[Container]:
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [container for group in groups for container in pod.get(group) or ()]


def _own(container: Container) -> dict[str, Any]:
    return container.get("securityContext") or {}


def _bad(pod: PodSpec, is_bad: Callable[[Container], bool]) -> list[str]:
    """Return the names of the containers for which `is_bad` holds."""
    return [container["name"] for container in _containers(pod) if is_bad(container)]


def _named(names: list[str], noun: str = "container") -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


def _namespaces(pod: PodSpec) -> Iterator[str]:
    if flags := [f"{flag}=true" for flag in ("hostNetwork", "hostPID", "hostIPC") if pod.get(flag) is True]:
        yield f"host namespaces ({', '.join(flags)})"


def _host_ports(pod: PodSpec) -> Iterator[str]:
    ports = {port["hostPort"] for one in _containers(pod) for port in one.get("ports") or () if port.get("hostPort")}
    if ports:
        names = _bad(pod, lambda one: any(port.get("hostPort") for port in one.get("ports") or ()))
        uses, noun = "use" if len(names) > 1 else "uses", "hostPorts" if len(ports) > 1 else "hostPort"
        yield f"hostPort ({_named(names)} {uses} {noun} {', '.join(sorted(map(str, ports)))})"


def _privileged(pod: PodSpec) -> Iterator[str]:
    if names := _bad(pod, lambda one: _own(one).get("privileged") is True):
        yield f"privileged ({_named(names)} must not set securityContext.privileged=true)"


def _escalation(pod: PodSpec) -> Iterator[str]:
    if names := _bad(pod, lambda one: _own(one).get("allowPrivilegeEscalation") is not False):
        must = "must set securityContext.allowPrivilegeEscalation=false"
        yield f"allowPrivilegeEscalation != false ({_named(names)} {must})"


def _capabilities(pod: PodSpec) -> Iterator[str]:
    def changes(container: Container, key: str) -> set[str]:
        return set((_own(container).get("capabilities") or {}).get(key) or ())

    details = []
    if names := _bad(pod, lambda one: "ALL" not in changes(one, "drop")):
        details.append(f'{_named(names)} must set securityContext.capabilities.drop=["ALL"]')
    added = set().union(*(changes(one, "add") for one in _containers(pod))) - {"NET_BIND_SERVICE"}
    if added:
        names = _bad(pod, lambda one: bool(changes(one, "add") - {"NET_BIND_SERVICE"}))
        details.append(f"{_named(names)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add")
    if details:
        yield f"unrestricted capabilities ({'; '.join(details)})"


def _volumes(pod: PodSpec) -> Iterator[str]:
    bad = [volume for volume in pod.get("volumes") or () if not (volume.keys() - {"name"}) & _VOLUMES]
    bad = [volume for volume in bad if volume.keys() - {"name"}]  # without a type it is an emptyDir
    if bad:
        types = sorted({type_ for volume in bad for type_ in volume.keys() - {"name"}})
        uses, noun = "use" if len(bad) > 1 else "uses", "restricted volume type" + ("s" if len(types) > 1 else "")
        names = _named([volume["name"] for volume in bad], "volume")
        yield f"restricted volume types ({names} {uses} {noun} {_quoted(types)})"


def _non_root(pod: PodSpec) -> Iterator[str]:
    of_pod = (pod.get("securityContext") or {}).get("runAsNonRoot")
    setters = ["pod"] if of_pod is False else []
    if names := _bad(pod, lambda one: _own(one).get("runAsNonRoot") is False):
        setters.append(_named(names))
    if setters:
        yield f"runAsNonRoot != true ({' and '.join(setters)} must not set securityContext.runAsNonRoot=false)"
    elif names := _bad(pod, lambda one: _own(one).get("runAsNonRoot") is None and of_pod is not True):
        yield f"runAsNonRoot != true (pod or {_named(names)} must set securityContext.runAsNonRoot=true)"


def _user(pod: PodSpec) -> Iterator[str]:
    setters = ["pod"] if (pod.get("securityContext") or {}).get("runAsUser") == 0 else []
    if names := _bad(pod, lambda one: _own(one).get("runAsUser") == 0):
        setters.append(_named(names))
    if setters:
        yield f"runAsUser=0 ({' and '.join(setters)} must not set runAsUser=0)"


def _seccomp(pod: PodSpec) -> Iterator[str]:
    def profile(owner: dict[str, Any]) -> str | None:
        found = (owner.get("securityContext") or {}).get("seccompProfile")
        return str(found.get("type")) if found else None

    of_pod = profile(pod)
    setters = ["pod"] if of_pod is not None and of_pod not in _SECCOMP else []
    names = _bad(pod, lambda one: profile(one) is not None and profile(one) not in _SECCOMP)
    if names:
        setters.append(_named(names))
    if setters:
        values = {text for owner in (pod, *_containers(pod)) if (text := profile(owner)) and text not in _SECCOMP}
        must = f"must not set securityContext.seccompProfile.type to {_quoted(sorted(values))}"
        yield f"seccompProfile ({' and '.join(setters)} {must})"
    elif names := _bad(pod, lambda one: profile(one) is None and of_pod is None):
        must = (
            f"must set securityContext.seccompProfile.type to {' or '.join(map(_quoted, ([one] for one in _SECCOMP)))}"
        )
        yield f"seccompProfile (pod or {_named(names)} {must})"
