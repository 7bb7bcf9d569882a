"""Releases with a shadow step: what the live pods copy decides about a canary before it has callers.

The endpoint is the program's, the servers and the check are the product's, and callers send requests all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from laptop.cluster.kinds import POD
from laptop.tests.cluster.running_cluster import RunningCluster
from laptop.tests.cluster.test_canary_check import MODEL, set_seconds
from laptop.tests.cluster.test_canary_traffic import Callers, TrafficStage, erring_bundle, opened_stage
from pipelines.declarations.shadow_traffic import SHADOW_PEERS, ShadowPeers
from tests.aws import EmulatedAccount
from tests.infra.recording import Recording, edit, record, release_everywhere
from tests.pipelines.serving.bundles import linear_bundle
from tests.sample_project import copy_as_forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class ShadowStage(TrafficStage):
    """Endpoint whose model declares a shadow step."""

    def server_variables(self) -> dict[str, str]:
        urls = {role: f"http://{MODEL}-{role}.{self.namespace}.svc" for role in ("shadow", "ping", "pong")}
        return {SHADOW_PEERS: ShadowPeers(beacon=urls.pop("shadow"), **urls).model_dump_json()}

    @staticmethod
    def first_steps(steps: list[dict[str, Any]], weight: int, seconds: int) -> list[dict[str, Any]]:
        """Return the shadow step and the first traffic step, the first with another duration."""
        first = steps[:5]
        set_seconds(first[1], seconds)
        first[2]["setWeight"] = weight
        return first

    def said(self) -> str:
        """Return the output of all checks."""
        names = [pod["metadata"]["name"] for pod in self.cluster.find_all(POD, self.namespace)]
        return "\n".join(self.cluster.log(self.namespace, name) for name in names if ".harm." in name)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev whose model copies half of its requests first."""
    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("shadow") / "project"))
    edit(project / "models" / MODEL / "model.yaml", "serving", "shadow", value={"percent": 50, "pause_seconds": 1})
    return record(project, "dev", descriptors={})


@pytest.fixture(scope="module")
def stage(cluster: RunningCluster, graph: Recording, account: EmulatedAccount) -> Iterator[ShadowStage]:
    with opened_stage(ShadowStage, cluster, graph, account) as made:
        yield made


@pytest.fixture(scope="module")
def live(stage: ShadowStage) -> str:
    digest = stage.push(linear_bundle(), 1)
    assert stage.serve(digest)["phase"] == "Healthy"
    return digest


def test_a_bad_release_is_stopped_without_one_failed_request(stage: ShadowStage, live: str) -> None:
    bad = stage.push(erring_bundle(), 2)
    with Callers(stage.cluster.address(stage.namespace, MODEL), threads=1) as callers:
        status = stage.serve(bad, seconds=300)
    assert status["phase"] == "Degraded"
    assert set(callers.answers) == {(200, live)}, "no caller met the release"
    assert callers.answers[200, live] > 20
    (printed,) = stage.output("harm")
    assert "golden rows match" in printed
    assert f"failed: http://{MODEL}-pong.{stage.namespace}.svc is worse than the live pods after " in printed
    assert " copies of their requests: errors: canary " in printed
    assert stage.served() == {live}


def test_a_good_release_goes_on_to_traffic_and_is_then_live(stage: ShadowStage, live: str) -> None:
    good = stage.push(linear_bundle(), 3)
    with Callers(stage.cluster.address(stage.namespace, MODEL), threads=1) as callers:
        status = stage.serve(good, seconds=20)
    assert status["phase"] == "Healthy"
    assert {code for code, _ in callers.answers} == {200}
    assert {bundle for _, bundle in callers.answers} <= {live, good}
    assert stage.served() == {good}
    assert "is not worse than the live pods after " in stage.said()
    assert " copies of their requests" in stage.said()
