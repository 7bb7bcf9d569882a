"""Logs of the Jobs that check a canary."""

from __future__ import annotations

from contextlib import suppress

import httpx2
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect
from pipelines.cluster.jobs import created_at
from pipelines.cluster.pod_logs import WORKLOAD
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import check_name

_OUTCOME = "inconclusive: "


def why_inconclusive(namespace: str, model: str) -> str:
    """Return what the newest check without a verdict said last; "" if its log cannot be read.

    Args:
        namespace: namespace of the endpoint.
        model: name of the model.
    """
    with suppress(MlopsError, ApiError, httpx2.HTTPError), connect(namespace) as client:
        pods = client.list(Pod, labels={WORKLOAD: check_name(model)})
        for pod in sorted(pods, key=created_at, reverse=True):
            assert pod.metadata is not None
            for line in reversed([*client.log(str(pod.metadata.name), tail_lines=5)]):
                if line.startswith(_OUTCOME):
                    return line.removeprefix(_OUTCOME).strip()
    return ""
