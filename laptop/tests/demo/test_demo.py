"""Requirements of `mlops demo`, and its treatment of a repository's releases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from lightkube.resources.core_v1 import Pod

from laptop import lifecycle
from laptop.demo.journey import errors_of, waits_for_image
from laptop.demo.material import CENSUS, DATASET, MODEL, PATIENTS, own_clone, take_releases_back
from laptop.github.runner.results import JobResult
from laptop.short_waits import SHORT_REQUESTS, SHORT_SECONDS, scale_waits, shorten_waits
from pipelines.cli.main import mlops
from pipelines.data.local_rows import read_good_rows
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from tests.sample_project import ROOT, copy_as_forked

BUNDLE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(copy_as_forked(tmp_path / "fork"))


@pytest.mark.parametrize(
    "part",
    [
        lambda p: p.model_file(MODEL),
        lambda p: p.contract_file(DATASET),
        lambda p: p.contracts_folder / "samples" / f"{DATASET}.csv",
    ],
    ids=["model", "contract", "data"],
)
def test_the_demo_names_a_missing_sample_and_starts_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, part: Callable[[Project], Path]
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(lifecycle, "stop", lambda home: pytest.fail("the demo started"))
    missing = part(project)
    missing.unlink()
    done = CliRunner().invoke(mlops, ["demo"])
    assert isinstance(done.exception, MlopsError)
    assert f"missing {missing.relative_to(project.root)}\n" in f"{done.exception}\n"
    assert "a clone of the template" in done.exception.fix
    assert (done.output, list(project.root.glob(".mlops"))) == ("", [])


def test_a_fault_of_load_balancers_needs_a_realistic_laptop(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(lifecycle, "stop", lambda home: pytest.fail("the demo started"))
    done = CliRunner().invoke(mlops, ["demo", "--fault", "targets-stuck"])
    assert isinstance(done.exception, MlopsError)
    assert done.exception.fix == "add --realistic."


def test_a_clone_without_a_sample_model_has_nothing_of_it(tmp_path: Path) -> None:
    made = own_clone(Project(ROOT), tmp_path / "clone", without=[CENSUS])
    assert CENSUS.model not in made.model_names
    assert not {CENSUS.dataset, *CENSUS.others} & set(made.dataset_names)
    assert not list(made.root.glob("data-contracts/samples/census*"))
    assert not list(made.root.glob("tests/models/*census*"))
    PATIENTS.check(made)
    with pytest.raises(MlopsError, match=r"needs the sample model census-employment: missing models/census"):
        CENSUS.check(made)


@pytest.mark.slow
def test_the_years_of_the_census_are_batches_that_keep_the_contract(tmp_path: Path) -> None:
    project = Project(ROOT)
    files = CENSUS.write_batches(project, tmp_path / "batches")
    assert list(files) == ["first", "later", "mixed-up"]
    contract = project.contract(CENSUS.dataset)
    read = {name: read_good_rows(contract, file) for name, file in files.items()}
    assert {bad for _, bad in read.values()} == {0}
    years = [set(rows.column("answered_on").cast(pa.timestamp("s")).to_pandas().dt.year) for rows, _ in read.values()]
    assert years == [{2015}, {2016}, {2017}]
    original, _ = read_good_rows(contract, project.contracts_folder / "samples" / CENSUS.files[2])
    mixed, outcome = read["mixed-up"][0], "employed"
    assert mixed.drop_columns(outcome).equals(original.drop_columns(outcome))
    assert mixed.column(outcome) != original.column(outcome)
    assert pc.sum(mixed.column(outcome)) == pc.sum(original.column(outcome))


def test_the_demo_starts_without_the_releases_of_the_repository(project: Project) -> None:
    for environment, replaced in (("dev", OTHER), ("staging", None)):
        said = Release(model=MODEL, environment=environment, bundle=BUNDLE, replaces=replaced)
        project.release_file(MODEL, environment).write_text(render_release(said))
    take_releases_back(project)
    releases = [project.release(MODEL, environment) for environment in project.environments]
    assert [(release.bundle, release.replaces) for release in releases] == [(None, None)] * 3


def test_a_quick_clone_waits_seconds_where_a_real_project_waits_minutes(project: Project) -> None:
    file = project.model_file(MODEL)
    file.write_text(
        file.read_text()
        .replace("pause_seconds: 1", "pause_seconds: 300")
        .replace("soak: {requests: 20, seconds: 1}", "soak: {requests: 100, seconds: 1800}")
    )
    declared = project.model(MODEL)
    assert [step.pause_seconds for step in declared.serving.rollout] == [300, 300]
    assert (declared.gates.soak.requests, declared.gates.soak.seconds) == (100, 1800)
    shorten_waits(project)
    short = project.model(MODEL)
    assert [step.pause_seconds for step in short.serving.rollout] == [SHORT_SECONDS] * 2
    assert (short.gates.soak.requests, short.gates.soak.seconds) == (SHORT_REQUESTS, SHORT_SECONDS)
    assert project.stack("prod").config.environment.canary.on_inconclusive == "continue"


def test_soak_and_traffic_steps_pass_as_fast_as_the_time_of_the_laptop(project: Project) -> None:
    file = project.model_file(MODEL)
    file.write_text(
        file.read_text().replace("soak: {requests: 20, seconds: 1}", "soak: {requests: 100, seconds: 1800}")
    )
    file.write_text(file.read_text().replace("pause_seconds: 1", "pause_seconds: 300"))
    assert scale_waits(project, 20) == [MODEL]
    scaled = project.model(MODEL)
    assert (scaled.gates.soak.requests, scaled.gates.soak.seconds) == (100, 90)
    assert [step.pause_seconds for step in scaled.serving.rollout] == [15, 15]
    assert scale_waits(project, 1) == []


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (
            "error: overloaded\n  fix: wait\n##[error]Process completed with exit code 1.\n##[group]x",
            ["error: overloaded", "  fix: wait"],
        ),
        (
            "##[endgroup]\n##[error]Bad credentials (HTTP 401)\n  fix: check",
            ["Bad credentials (HTTP 401)", "  fix: check"],
        ),
    ],
)
def test_a_failed_deployment_is_shown_with_its_whole_error(tmp_path: Path, end: str, shown: list[str]) -> None:
    log = tmp_path / "log"
    log.write_text(f"applied\n{end}\n")
    failed, passed = (JobResult("deploy", "deploy dev", status, log=log) for status in ("failure", "success"))
    run: Any = SimpleNamespace(jobs=[passed, failed])
    assert errors_of(run) == shown


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        ({"waiting": {"reason": "ErrImagePull"}}, True),
        ({"waiting": {"reason": "ImagePullBackOff"}}, True),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, False),
        ({"running": {}}, False),
        ({}, False),
    ],
)
def test_a_pod_whose_image_cannot_be_pulled_waits_for_it(state: dict[str, Any], waits: bool) -> None:
    container = {"name": "serve", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    for key in ("containerStatuses", "initContainerStatuses"):
        pod = Pod.from_dict({"status": {key: [container]}})
        assert isinstance(pod, Pod) and waits_for_image(pod) is waits
    assert not waits_for_image(Pod())
