"""A data file lands, is ingested on the contract's schedule or on request, and its model is trained.

The workflows are the committed ones, run by the laptop's GitHub; the CronJob runs in the laptop's cluster.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from laptop.demo.material import DATASET, MODEL, batches
from laptop.github.hosting import AUTHOR
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import TRAINING, Story, ended, log, one_environment
from pipelines.cli.main import mlops
from pipelines.data.catalog import latest_columns
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVERY_MINUTE = {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "* * * * *"}
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("data")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        edit(project.contract_file(DATASET), "slaProperties", value=[EVERY_MINUTE])
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        yield play_all(Story(hub, project.root, hub.clone(folder / "clone", AUTHOR)), here.descriptor("dev"), folder)


def play_all(story: Story, dev: EnvironmentDescriptor, folder: Path) -> Story:
    hub, files = story.hub, batches(Project(story.source), folder / "batches")

    hub.tick(TRAINING)
    story.play("empty")

    land(files["first"])
    await_snapshot(dev)
    hub.tick(TRAINING)
    story.play("scheduled")
    hub.tick(TRAINING)
    story.play("unchanged")

    land(files["later"])
    hub.dispatch(AUTHOR, "ingest.yml", inputs={"dataset": DATASET, "file": files["later"].name})
    story.play("requested")

    hub.repository_dispatch(AUTHOR, "landed", {"dataset": DATASET})
    story.play("nothing-new")
    return story


def land(file: Path) -> None:
    done = CliRunner().invoke(mlops, ["land", DATASET, str(file), "--env", "dev"])
    assert done.exception is None, done.output


def await_snapshot(dev: EnvironmentDescriptor) -> None:
    """Wait until the scheduled job has ingested the first file."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while latest_columns(dev, DATASET) is None:
        assert time.monotonic() < deadline, "the CronJob has not ingested the file"
        time.sleep(0.5)


def test_the_first_training_waits_for_data_without_a_failure(story: Story) -> None:
    run = story.run("empty", "train")
    assert run.conclusion == "success"
    job = run.job(f"train {MODEL}")
    assert f"training of {MODEL} waits for data: {DATASET} has no rows yet" in log(job)
    assert f"**{MODEL}** was not trained: training of {MODEL} waits for data" in job.summary
    assert ended(job, "mlops propose") == "skipped"


def test_the_release_is_proposed_after_the_scheduled_job_has_ingested_the_first_file(story: Story) -> None:
    job = story.run("scheduled", "train", event="schedule").job(f"train {MODEL}")
    assert job.conclusion == "success"
    assert f"{DATASET}: 400 rows" in log(job)
    assert story.pulls[f"release/dev/{MODEL}"].title == f"Release {MODEL} to dev"


def test_the_same_data_is_not_trained_on_again(story: Story) -> None:
    job = story.run("unchanged", "train", event="schedule").job(f"train {MODEL}")
    assert job.conclusion == "success"
    assert f"{MODEL} is trained on the latest version of {DATASET}" in log(job)


def test_a_person_ingests_a_file_at_once_and_its_model_is_trained(story: Story) -> None:
    ingest = story.run("requested", "ingest").job("ingest")
    assert ingest.conclusion == "success", log(ingest)
    assert f"models: {MODEL}" in log(ingest)
    assert f"started the workflow train for {MODEL}" in log(ingest)
    train = story.run("requested", "train", event="workflow_dispatch").job(f"train {MODEL}")
    assert train.conclusion == "success", log(train)
    assert f"{DATASET}: 442 rows" in log(train)


def test_an_event_without_new_data_starts_no_training(story: Story) -> None:
    ingest = story.run("nothing-new", "ingest", event="repository_dispatch").job("ingest")
    assert ingest.conclusion == "success", log(ingest)
    assert ended(ingest, "mlops ci request-training") == "skipped"
    assert [run.workflow for run in story.acts["nothing-new"]] == ["ingest"]


def test_ingestion_signs_in_with_the_deploy_role(story: Story) -> None:
    assert "assumed arn:aws:iam::123456789012:role/bootstrap/mlops-deploy-dev" in log(
        story.run("requested", "ingest").job("ingest")
    )
