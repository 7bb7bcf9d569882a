from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.declarations.environment import Images
from pipelines.declarations.project import Project
from pipelines.github.alarm_workflow import RESPOND, with_environments
from pipelines.github.git import Git
from pipelines.promotion.images import pin_images
from pipelines.promotion.select import environments_to_deploy, models_to_train, select_changes
from tests.clones import commit_all, make_repository
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE
from tests.sample_project import PROJECT, ROOT


def respond_workflow() -> str:
    """Return the workflow `respond` of this repository, for the environments of the sample project."""
    return with_environments((ROOT / RESPOND).read_text(), ("dev", "staging", "prod"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_repository(tmp_path / "git")


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
def test_a_change_is_deployed_to_the_environments_that_it_affects(
    files: list[str], environments: tuple[str, ...]
) -> None:
    assert environments_to_deploy(Project(PROJECT), files) == environments


@pytest.mark.parametrize("name", [RELEASE, "Pulumi.prod.yaml"])
def test_a_line_break_at_the_end_of_a_name_makes_it_no_release_and_no_configuration(
    project: Project, name: str
) -> None:
    before = Git(project.root).head()
    (project.root / f"{name}\n").write_bytes((project.root / name).read_bytes())
    commit_all(project.root, "Add a file whose name looks like another one's")
    changed = select_changes(Git(project.root), before)
    assert (changed.releases, changed.pins, changed.other) == ((), (), (f"{name}\n",))


def test_models_are_trained_when_the_first_environment_pins_another_image(project: Project) -> None:
    repository, image = Git(project.root), "sha256:" + "1a" * 32
    before, file = repository.head(), project.stack_file("dev")
    assert models_to_train(project, repository, before) == (), "no image is pinned"
    pin_images(project, "staging", Images(training=image))
    assert models_to_train(project, repository, before) == ()
    pin_images(project, "dev", Images(serving=image))
    assert models_to_train(project, repository, before) == ()
    pin_images(project, "dev", Images(training=image))
    assert models_to_train(project, repository, before) == project.model_names != ()
    pinned = commit_all(project.root, "Pin")
    file.write_text(file.read_text() + "# another word\n")
    assert models_to_train(project, repository, pinned) == (), "the file changed, but not the pin"


@pytest.mark.parametrize(
    ("change", "only_lists"),
    [
        (lambda text: with_environments(text, ("dev", "qa")), True),
        (lambda text: with_environments(text, ("qa",)).replace("timeout-minutes: 60", "timeout-minutes: 61"), False),
        (lambda text: text.replace('"staging", ', ""), True),
        (lambda text: text.replace('["dev"', "['dev'"), False),
        (lambda text: f"# fromJSON('[\"qa\"]')\n{text}", False),
        (lambda _: "", False),
    ],
)
def test_only_other_environments_in_the_workflow_respond_are_told_apart_from_code(
    project: Project, change: Callable[[str], str], only_lists: bool
) -> None:
    file = project.root / RESPOND
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(respond_workflow())
    before = commit_all(project.root, "Before")
    file.write_text(change(file.read_text()))
    commit_all(project.root, "After")
    found = select_changes(Git(project.root), before)
    assert found.other == (str(RESPOND),)
    assert found.lists == ((str(RESPOND),) if only_lists else ())


def test_a_new_or_removed_workflow_respond_is_code(project: Project) -> None:
    file, without = project.root / RESPOND, Git(project.root).head()
    assert not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(respond_workflow())
    added = commit_all(project.root, "Added")
    assert select_changes(Git(project.root), without).lists == ()
    file.unlink()
    commit_all(project.root, "Removed")
    assert select_changes(Git(project.root), added).lists == ()


def test_models_are_trained_when_the_earlier_stack_file_was_missing_or_invalid(project: Project) -> None:
    repository, file = Git(project.root), project.stack_file("dev")
    text = file.read_text()
    file.write_text("config: [")
    wrong = commit_all(project.root, "Wrong")
    file.unlink()
    gone = commit_all(project.root, "Gone")
    file.write_text(text)
    pin_images(project, "dev", Images(training="sha256:" + "1a" * 32))
    for before in (wrong, gone):
        assert models_to_train(project, repository, before) == project.model_names
