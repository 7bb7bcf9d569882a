"""Fixtures of the laptop's tests."""

from tests.infra.conftest import bootstrap, fresh, graph, graphs, project
from tests.pipelines.conftest import account

__all__ = ["account", "bootstrap", "fresh", "graph", "graphs", "project"]
