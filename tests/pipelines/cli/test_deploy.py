"""What `mlops deploy` does before it applies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.releases import run_deploy
from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.targets import Finding, Target
from tests.pipelines.promotion.image_server import ImageServer, Repository, image_server, registered
from tests.pipelines.promotion.world import make_repository


class UpTarget(Target):
    """A target whose environments are up, and which notes what its registry holds whenever it is applied."""

    def __init__(self, project: Project, registry: ImageServer) -> None:
        super().__init__(project)
        self.registry = registry
        self.applied: list[tuple[str, str, set[str]]] = []

    def connect(self) -> None:
        pass

    def outputs(self, environment: str) -> dict[str, Any]:
        return {}

    def reach_cluster(self, environment: str) -> None:
        pass

    def drift(self, environment: str) -> list[str]:
        return []

    def findings(self) -> list[Finding]:
        return []

    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        return {name: registered(name) for name in ("dev", "staging")}

    def apply(self, operation: str, environment: str) -> None:
        held = set(self.registry.repositories[f"mlops-{environment}/serving"].images)
        self.applied.append((operation, environment, held))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[UpTarget]:
    with image_server() as registry:
        for environment in ("dev", "staging"):
            registry.repositories[f"mlops-{environment}/serving"] = Repository()
        yield UpTarget(make_repository(tmp_path), registry)


def test_a_deployment_brings_the_pinned_images_before_it_applies(target: UpTarget) -> None:
    digest = target.registry.repositories["mlops-dev/serving"].hold_image(b"layer")
    pin_images(target.project, "staging", Images(serving=digest))
    run_deploy(target, "staging")
    assert target.applied == [("up", "staging", {digest})]


def test_a_deployment_whose_image_is_nowhere_applies_nothing(target: UpTarget) -> None:
    pin_images(target.project, "staging", Images(serving="sha256:" + "0" * 64))
    with pytest.raises(MlopsError, match="is in neither"):
        run_deploy(target, "staging")
    assert target.applied == []
