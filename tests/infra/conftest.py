"""The graphs of every environment, recorded once: with every model released everywhere, and with nothing pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.recording import Recording, record, release_everywhere
from tests.sample_project import copy_as_forked

ENVIRONMENTS = ("dev", "staging", "prod")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which images are pinned and bundles released."""
    return release_everywhere(copy_as_forked(tmp_path_factory.mktemp("released") / "project"))


@pytest.fixture(scope="session")
def graphs(project: Path) -> dict[str, Recording]:
    """Environment → what its program asks for when everything is released."""
    recorded: dict[str, Recording] = {}
    for environment in ENVIRONMENTS:
        descriptors = {name: one.outputs["descriptor"] for name, one in recorded.items()}
        recorded[environment] = record(project, environment, descriptors=descriptors)
    return recorded


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """What the program asks for in dev when no image is pinned and nothing is released."""
    project = copy_as_forked(tmp_path_factory.mktemp("fresh") / "project")
    return record(project, "dev")


@pytest.fixture(params=ENVIRONMENTS)
def graph(request: pytest.FixtureRequest, graphs: dict[str, Recording]) -> Recording:
    """Each environment's graph in turn."""
    return graphs[request.param]
