"""Tokens with which pods on the laptop's node ask a real API server, as a kubelet gets them."""

from __future__ import annotations

from pathlib import Path

from laptop.cluster.objects import Object, name_of, namespace_of, uid_of
from laptop.cluster.service_accounts import write_access
from laptop.conformance.control_plane import ControlPlane

_SECONDS = 3600


class PodTokens:
    """Source of the tokens of pods. The API server gives each one for one pod, and no longer knows it when that ends.

    Args:
        plane: the control plane.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def admit(self, pod: Object, folder: Path) -> dict[str, str]:
        """Write a pod's token into its folder, and return the variables that point to it.

        The API server has added a volume for it to each pod that gets one.
        """
        volumes = pod["spec"].get("volumes") or ()
        sources = [source for volume in volumes for source in (volume.get("projected") or {}).get("sources") or ()]
        if not any("serviceAccountToken" in source for source in sources):
            return {}
        namespace, account = namespace_of(pod), pod["spec"]["serviceAccountName"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": _SECONDS, "boundObjectRef": bound},
        }
        with self._plane.client() as api:
            answer = api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", json=asked)
        token = answer.raise_for_status().json()["status"]["token"]
        return write_access(folder, namespace, token, self._plane.url, self._plane.certificate.read_bytes())

    def dismiss(self, pod: Object) -> None:
        """Do nothing: the API server refuses the token of a pod that is gone."""
