"""Fixtures of the laptop's tests."""

import os
from collections.abc import Iterator

import boto3
import pytest

import tests.conftest  # noqa: F401 - isolates from the shell's environment, also without the product's own tests
from tests.infra.conftest import bootstrap, fresh, graph, graphs, project
from tests.pipelines.conftest import account

__all__ = ["account", "bootstrap", "fresh", "graph", "graphs", "project"]


@pytest.fixture(autouse=True, scope="module")
def _own_environment() -> Iterator[None]:
    """Keep the account that a module's laptop leads this process to from the tests of other modules."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    boto3.DEFAULT_SESSION = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first: each file runs in one worker, so a long one at the end would run alone."""
    items.sort(key=lambda item: "journeys" not in item.path.parts)
