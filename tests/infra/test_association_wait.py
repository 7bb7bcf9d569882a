"""No pod of an endpoint is created before EKS Pod Identity knows its service account."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pulumi
import pytest

from infra.components.association_wait import SETTLE_SECONDS, AssociationWait, new_associations
from tests.infra.recording import Recording, record

ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
ROLLOUT = "kubernetes:argoproj.io/v1alpha1:Rollout"
TEMPLATE = "kubernetes:argoproj.io/v1alpha1:AnalysisTemplate"


class Pauses:
    """Waits that last as long as it takes to register everything that does not wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        for _ in range(1000):
            await asyncio.sleep(0)


def test_what_starts_pods_is_created_after_the_wait_of_a_first_update(project: Path) -> None:
    pauses = Pauses()
    graph = record(project, "dev", pause=pauses)
    order = [resource.type for resource in graph.resources]
    assert pauses.seconds == [SETTLE_SECONDS]
    assert len(order) - order[::-1].index(ASSOCIATION) - 1 < order.index(TEMPLATE) < order.index(ROLLOUT)


def test_a_later_update_does_not_wait(project: Path, graphs: dict[str, Recording]) -> None:
    pauses = Pauses()
    assert record(project, "dev", pause=pauses, last_outputs=graphs["dev"].outputs).of_type(ROLLOUT)
    assert pauses.seconds == []


def test_a_preview_does_not_wait(project: Path) -> None:
    pauses = Pauses()
    assert record(project, "dev", pause=pauses, preview=True).of_type(ROLLOUT)
    assert pauses.seconds == []


def test_what_several_endpoints_wait_for_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi, "info", said.append)
    waiting = AssociationWait(pulumi.Output.from_input({}))
    waiting.announce()
    waiting.announce()
    assert said == [f"waiting {SETTLE_SECONDS:.0f} s until Pod Identity knows the new service accounts"]


def test_only_associations_that_the_last_update_did_not_know_are_new() -> None:
    assert new_associations(["a", "b"], {}) == ["a", "b"]
    assert new_associations(["a", "b"], {"associations": ["a", "c"]}) == ["b"]
    assert new_associations(["a"], {"associations": ["a"]}) == []
