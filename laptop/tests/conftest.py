"""Fixtures of the laptop's tests."""

from tests.infra.conftest import fresh, graph, graphs, project
from tests.pipelines.conftest import account

__all__ = ["account", "fresh", "graph", "graphs", "project"]
