"""Pods of an endpoint that are reached without a cluster, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.serving.probe import EndpointClient, open_endpoint


@contextmanager
def open_direct_pods(descriptor: EnvironmentDescriptor, model: str) -> Iterator[list[EndpointClient]]:
    """Stand in for `open_pods`: one pod, at the URL of the endpoint."""
    with open_endpoint(descriptor, model) as endpoint:
        yield [endpoint]
