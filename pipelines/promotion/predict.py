"""Send a prediction request to a model's endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.pod_endpoints import open_pods
from pipelines.serving.golden import CHECK_REQUEST, request_of
from pipelines.serving.probe import EndpointClient, golden_of, open_endpoint
from pipelines.targets import Target


def predict(
    target: Target,
    model: str,
    environment: str,
    request: bytes | None = None,
    *,
    direct: bool = False,
    times: int = 1,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send a request to an endpoint: to one of its pods, through the Kubernetes API.

    The golden request is sent with the id that monitors leave out: copies of a few rows are not like real traffic.

    Args:
        target: where the environment lives.
        model: the model's name.
        environment: the environment's name.
        request: an Open Inference Protocol v2 request as JSON; None for the golden request of the live bundle.
        direct: send it to the load balancer, which only the private network reaches, instead of one of the pods.
        times: how often to send it, one after the other.

    Returns:
        The request, without that id, and the last response, as parsed JSON.

    Raises:
        MlopsError: there is no endpoint, the request is not a JSON object, or the endpoint answers with an error.
    """
    target.project.model(model)
    descriptor = target.descriptor(environment)
    with open_endpoint(descriptor, model) if direct else _open_pod(descriptor, model) as endpoint:
        if request is None:
            asked = request_of(golden_of(descriptor, model, endpoint.served()))
            sent = {"id": CHECK_REQUEST, **asked}
        else:
            asked = sent = _parse(request)
        for _ in range(times - 1):
            endpoint.infer(sent)
        return asked, endpoint.infer(sent)


@contextmanager
def _open_pod(descriptor: EnvironmentDescriptor, model: str) -> Iterator[EndpointClient]:
    with open_pods(descriptor, model) as pods:
        yield pods[0]


def _parse(request: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(request)
    except (ValueError, RecursionError) as error:
        raise MlopsError(f"the request is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise MlopsError("the request is not a JSON object")
    return parsed
