"""Pod specs: one unprivileged container that can write only to /tmp.

Field names are those of the Kubernetes API (camelCase), as in a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.scopes import Environment
from pipelines.declarations.environment import VARIABLE, SecretKey
from pipelines.declarations.model import Resources

_USER = 10001
_SCRATCH = "/tmp"  # noqa: S108  the pod's own volume


@dataclass(frozen=True, kw_only=True)
class PodArgs:
    """Arguments of `pod_spec`.

    Attributes:
        environment: the environment that the pod runs in.
        name: the container's name.
        service_account: the pod's service account.
        image: reference of the image by digest (`<repository>@sha256:…`).
        command: the container's command.
        descriptor: the environment's descriptor as JSON; None if the container needs none.
        resources: requests and limits of the container.
        scratch: size of the volume at /tmp (`1Gi`).
        variables: environment variables (`EnvVar`) to add.
        container: fields of the container to add (ports, probes).
        pod: fields of the pod spec to add.
    """

    environment: Environment
    name: str
    service_account: str
    image: str
    command: Sequence[str]
    descriptor: pulumi.Input[str] | None
    resources: Resources
    scratch: str
    variables: Sequence[Mapping[str, Any]] = ()
    container: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)


def pod_spec(args: PodArgs) -> dict[str, Any]:
    """Return a pod spec that the Pod Security Standard `restricted` admits."""
    resources = args.resources.model_dump()
    region = args.environment.region
    return {
        "serviceAccountName": args.service_account,
        # Pod Identity mounts its own token. This one would give access to the cluster's API.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "affinity": {"nodeAffinity": _built_for(args.environment.config.architectures)},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": args.name,
                "image": args.image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(args.command),
                "env": [
                    *([] if args.descriptor is None else [{"name": VARIABLE, "value": args.descriptor}]),
                    {"name": "IMAGE_DIGEST", "value": args.image.rpartition("@")[2]},
                    {"name": "AWS_REGION", "value": region},
                    {"name": "AWS_DEFAULT_REGION", "value": region},
                    # Without credentials of its own, a pod must not fall back to those of its node.
                    {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"},
                    *args.variables,
                ],
                "resources": {"requests": resources, "limits": resources},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": _SCRATCH}],
                **args.container,
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": args.scratch}}],
        **args.pod,
    }


def _built_for(architectures: Sequence[str]) -> dict[str, Any]:
    """Return the node affinity of pods whose images are built for some processor architectures."""
    expression = {"key": "kubernetes.io/arch", "operator": "In", "values": list(architectures)}
    term = {"matchExpressions": [expression]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}


def secret_variable(name: str, secret: SecretKey) -> dict[str, Any]:
    """Return a variable (`EnvVar`) with the value of a Secret. It is not set as long as there is no such Secret."""
    reference = {"name": secret.secret, "key": secret.key, "optional": True}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
