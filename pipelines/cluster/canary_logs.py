"""Logs of the Jobs that check a canary."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import httpx2
from lightkube.core.exceptions import ApiError

from pipelines.cluster.connection import connect
from pipelines.cluster.rollout_pods import pods_with_bundle
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import check_name


def reason_of_check(namespace: str, model: str, bundle: str, outcome: Literal["failed", "inconclusive"]) -> str:
    """Return why the newest check of a bundle had an outcome; "" if none had, or its log cannot be read.

    Args:
        namespace: namespace of the endpoint.
        model: name of the model.
        bundle: digest of the bundle on trial.
        outcome: outcome of the check.
    """
    start = f"{outcome}: "
    with suppress(MlopsError, ApiError, httpx2.HTTPError), connect(namespace) as client:
        for pod in pods_with_bundle(client, check_name(model), bundle):
            assert pod.metadata is not None
            for line in reversed([*client.log(str(pod.metadata.name), tail_lines=5)]):
                if line.startswith(start):
                    return line.removeprefix(start).strip()
    return ""
