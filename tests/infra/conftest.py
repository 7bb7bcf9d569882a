"""Recorded resource graphs: of every environment, of a fresh one, and of the account's bootstrap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.recording import Recording, record, record_bootstrap, release_everywhere
from tests.sample_project import copy_as_forked

ENVIRONMENTS = ("dev", "staging", "prod")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with pinned images and released bundles."""
    return release_everywhere(copy_as_forked(tmp_path_factory.mktemp("released") / "project"))


@pytest.fixture(scope="session")
def graphs(project: Path) -> dict[str, Recording]:
    """Return name → graph of every environment, with everything released."""
    recorded: dict[str, Recording] = {}
    for environment in ENVIRONMENTS:
        descriptors = {name: one.outputs["descriptor"] for name, one in recorded.items()}
        recorded[environment] = record(project, environment, descriptors=descriptors)
    return recorded


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev with no image pinned and nothing released."""
    project = copy_as_forked(tmp_path_factory.mktemp("fresh") / "project")
    return record(project, "dev")


@pytest.fixture(params=ENVIRONMENTS)
def graph(request: pytest.FixtureRequest, graphs: dict[str, Recording]) -> Recording:
    """Return the graph of one environment; parametrized over all."""
    return graphs[request.param]


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of the account's bootstrap."""
    project = copy_as_forked(tmp_path_factory.mktemp("bootstrap") / "project", "infra/bootstrap")
    return record_bootstrap(project)
