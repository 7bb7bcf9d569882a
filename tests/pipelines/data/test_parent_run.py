"""The parent of a run, for OpenLineage."""

from __future__ import annotations

import uuid

import pytest

from pipelines.data.lineage import ParentRun, parent_run
from pipelines.declarations.environment import EnvironmentDescriptor
from tests.pipelines.registry.chains import offline_environment

RUN = "3f5e83fa-3480-44ff-99c5-ff943904e5e8"


@pytest.fixture
def dev() -> EnvironmentDescriptor:
    return offline_environment()


def test_the_pods_of_a_job_have_the_same_parent_and_the_next_job_another(dev: EnvironmentDescriptor) -> None:
    names = ("ingest-visits-29400000-abcde", "ingest-visits-29400000-fghij", "ingest-visits-29400060-abcde")
    found = [parent_run(dev, "ingest-visits", {"HOSTNAME": name}) for name in names]
    assert found[0] == found[1] != found[2]
    assert found[0] is not None and found[0].namespace == f"kubernetes://{dev.cluster}/{dev.namespace}"
    assert str(uuid.UUID(found[0].run)) == found[0].run


def test_a_workflow_run_is_the_parent_of_what_it_deploys(dev: EnvironmentDescriptor) -> None:
    environ = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_WORKFLOW": "deploy"}
    first, again = (
        parent_run(dev, "deploy-m", {**environ, "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": attempt})
        for attempt in ("1", "2")
    )
    assert first is not None and again is not None
    assert (first.namespace, first.name) == ("https://github.com/o/r", "deploy") and first.run != again.run


def test_an_orchestrator_can_name_the_parent(dev: EnvironmentDescriptor) -> None:
    environ = {"OPENLINEAGE_PARENT_ID": f"airflow://host/daily.load/{RUN}", "HOSTNAME": "ingest-visits-1-abcde"}
    assert parent_run(dev, "ingest-visits", environ) == ParentRun("airflow://host", "daily.load", RUN)


@pytest.mark.parametrize(
    "environ", [{}, {"HOSTNAME": "laptop"}, {"HOSTNAME": "ingest-other-1-abcde"}, {"OPENLINEAGE_PARENT_ID": "a/b/c"}]
)
def test_without_a_known_parent_there_is_none(dev: EnvironmentDescriptor, environ: dict[str, str]) -> None:
    assert parent_run(dev, "ingest-visits", environ) is None
