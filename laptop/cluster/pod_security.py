"""The `restricted` Pod Security Standard (kubernetes.io/docs/concepts/security/pod-security-standards)."""

from __future__ import annotations

from typing import Any

ENFORCE = "pod-security.kubernetes.io/enforce"

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod_spec: dict[str, Any]) -> list[str]:
    """Return the violations of the `restricted` standard in a pod spec; [] if there are none."""
    found: list[str] = []
    pod = pod_spec.get("securityContext") or {}
    found += [f"{flag} is true" for flag in ("hostNetwork", "hostPID", "hostIPC") if pod_spec.get(flag) is True]
    for volume in pod_spec.get("volumes") or ():
        kinds = {key for key in volume if key != "name"}
        if kinds - _VOLUMES:
            found.append(f"volume {volume.get('name')!r} uses {', '.join(sorted(kinds - _VOLUMES))}")
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod_spec.get(group) or ():
            found += [f"container {container.get('name')!r}: {what}" for what in _container(container, pod)]
    return found


def _container(container: dict[str, Any], pod: dict[str, Any]) -> list[str]:
    own = container.get("securityContext") or {}
    found = []
    if own.get("privileged") is True:
        found.append("privileged is true")
    if own.get("allowPrivilegeEscalation") is not False:
        found.append("securityContext.allowPrivilegeEscalation must be false")
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        found.append('securityContext.capabilities.drop must contain "ALL"')
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        found.append("securityContext.capabilities.add may only name NET_BIND_SERVICE")
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        found.append("runAsNonRoot must be true, on the pod or the container")
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        found.append("runAsUser must not be 0")
    profile = (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        found.append("seccompProfile.type must be RuntimeDefault or Localhost, on the pod or the container")
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        found.append("hostPort is set")
    return found
