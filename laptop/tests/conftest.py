"""Fixtures of the laptop's tests."""

import pytest

from tests.conftest import _own_environment  # also without the product's own tests
from tests.infra.conftest import bootstrap, fresh, graph, graphs, project
from tests.pipelines.conftest import account

__all__ = ["_own_environment", "account", "bootstrap", "fresh", "graph", "graphs", "project"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first: each file runs in one worker, so a long one at the end would run alone."""
    items.sort(key=lambda item: "journeys" not in item.path.parts)
