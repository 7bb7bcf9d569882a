from __future__ import annotations

import pytest

from pipelines.declarations.project import Project
from pipelines.promotion.plan import environments_to_deploy, models_to_train
from tests.pipelines.promotion.world import MODEL, RELEASE, ROOT


@pytest.fixture
def project() -> Project:
    return Project(ROOT)


@pytest.mark.parametrize(
    ("files", "environments"),
    [
        ([RELEASE], ("staging",)),
        ([RELEASE, RELEASE.replace("staging", "dev")], ("dev", "staging")),
        (["Pulumi.prod.yaml"], ("prod",)),
        (["Pulumi.yaml"], ("dev", "staging", "prod")),
        (["infra/components/bucket.py"], ("dev", "staging", "prod")),
        (["data-contracts/x.odcs.yaml"], ("dev", "staging", "prod")),
        ([f"models/{MODEL}/model.yaml"], ("dev", "staging", "prod")),
        ([f"models/{MODEL}/train.py", "docs/x.md", "pipelines/x.py"], ()),
        ([RELEASE.replace("staging", "nowhere")], ()),
        ([], ()),
    ],
)
def test_a_change_is_deployed_where_it_may_change_something(
    project: Project, files: list[str], environments: tuple[str, ...]
) -> None:
    assert environments_to_deploy(project, files) == environments


def test_models_are_trained_when_the_environment_that_trains_pins_another_image(project: Project) -> None:
    assert models_to_train(project, ["Pulumi.dev.yaml"]) == project.model_names != ()
    assert models_to_train(project, ["Pulumi.prod.yaml", f"models/{MODEL}/train.py"]) == ()
