"""A pod as every pod here is: one container that is nobody, owns nothing and can write only to /tmp.

Values are in the words of the Kubernetes API (camelCase), as in a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.environment import Environment
from pipelines.declarations.digests import Digest
from pipelines.declarations.environment import VARIABLE
from pipelines.declarations.model import Resources

_USER = 10001
_SCRATCH = "/tmp"  # noqa: S108  the pod's own volume


@dataclass(frozen=True)
class PodArgs:
    """What tells one pod from another.

    Attributes:
        environment: where it runs.
        name: of its container.
        service_account: who it is.
        image: full reference, by digest.
        digest: of the image.
        command: what runs.
        descriptor: the environment's descriptor as JSON.
        resources: what it gets, no less and no more.
        scratch: size of /tmp.
        variables: more environment variables (`EnvVar`s).
        container: more of the container: ports, probes.
        pod: more of the pod: how it is spread, when it ends.
    """

    environment: Environment
    name: str
    service_account: str
    image: pulumi.Input[str]
    digest: Digest
    command: Sequence[str]
    descriptor: pulumi.Input[str]
    resources: Resources
    scratch: str
    variables: Sequence[Mapping[str, Any]] = ()
    container: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)


def pod_spec(args: PodArgs) -> dict[str, Any]:
    """The spec of a pod that the Pod Security Standard `restricted` lets in."""
    resources = args.resources.model_dump()
    region = args.environment.region
    return {
        "serviceAccountName": args.service_account,
        # The token that Pod Identity needs is mounted apart from this one, which would open the cluster's API.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
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
                    {"name": VARIABLE, "value": args.descriptor},
                    {"name": "IMAGE_DIGEST", "value": args.digest},
                    {"name": "AWS_REGION", "value": region},
                    {"name": "AWS_DEFAULT_REGION", "value": region},
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
