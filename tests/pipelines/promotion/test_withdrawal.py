"""Withdrawals: what a change does to release files, the verdicts, the deployment and its record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.environment import FreezeWindow
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.release import Release
from pipelines.promotion.deploy import deploy
from pipelines.promotion.history import at_time
from pipelines.promotion.judge import judge_change
from pipelines.promotion.release_changes import ReleaseFileChange, read_release_changes
from pipelines.promotion.withdrawal import WithdrawalFacts, judge_withdrawal, record_withdrawal
from pipelines.registry.ledger import Ledger
from tests.clones import commit_all
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, World, WorldTarget
from tests.pipelines.promotion.test_deploy import deploy_accepted

A, B = ("sha256:" + letter * 64 for letter in "ab")
NOW = datetime(2026, 3, 2, tzinfo=UTC)
GONE = mock.patch("pipelines.promotion.withdrawal.check_gone")


def release(bundle: str | None, replaces: str | None) -> Release:
    return Release(model=MODEL, environment="staging", bundle=bundle, replaces=replaces)


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (None, "removal"),
        (release(None, None), "nothing"),
        (release(None, A), "withdrawal"),
        (release(A, None), "release"),
        (release(B, A), "release"),
    ],
)
def test_a_change_of_a_release_file_has_one_kind(after: Release | None, kind: str) -> None:
    assert ReleaseFileChange(MODEL, "staging", release(A, None), after).kind == kind


def facts(**changes: Any) -> WithdrawalFacts:
    values: dict[str, Any] = {
        "release": release(None, A),
        "changed_files": (RELEASE,),
        "live": A,
        "freezes": (),
        "now": NOW,
    }
    return WithdrawalFacts(**values | changes)


FROZEN = FreezeWindow(start=NOW - timedelta(days=1), end=NOW + timedelta(days=1), reason="holidays")


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        (facts(), []),
        (facts(live=None), []),
        (facts(live=B), ["freshness"]),
        (facts(changed_files=(RELEASE, "README.md")), ["scope"]),
        (facts(freezes=(FROZEN,)), ["freeze"]),
        (facts(freezes=(FROZEN,), now=NOW + timedelta(days=2)), []),
    ],
)
def test_a_withdrawal_is_alone_withdraws_what_is_live_and_waits_for_a_freeze_to_end(
    found: WithdrawalFacts, refused: list[str]
) -> None:
    assert [verdict.gate for verdict in judge_withdrawal(found) if verdict.outcome != "pass"] == refused


def judged(world: World, base: str) -> list[str]:
    """Judge HEAD without a pull request; return what was said."""
    said: list[str] = []
    judge_change(WorldTarget(world, lambda: None), base, None, said.append)
    return said


@pytest.mark.slow
def test_release_files_that_name_no_bundle_may_come_and_go(world: World) -> None:
    base = world.repository.head()
    world.release(None, None)
    (world.root / RELEASE.replace("staging", "dev")).unlink()
    commit_all(world.root, "no dev")
    kinds = {one.environment: one.kind for one in read_release_changes(world.repository, base, "HEAD")}
    assert kinds["dev"] == "removal"
    assert judged(world, base)


@pytest.mark.slow
def test_what_is_live_is_neither_removed_nor_emptied_without_a_withdrawal(world: World) -> None:
    live = world.register(1)
    deploy_accepted(world, world.release(live, None))
    base = world.repository.head()
    world.release(None, None)
    with pytest.raises(MlopsError, match=r"names no bundle, but .* is live in staging .*mlops withdraw"):
        judged(world, base)
    with GONE, pytest.raises(MlopsError, match="expected it to be withdrawn"):
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)
    (world.root / RELEASE).unlink()
    commit_all(world.root, "gone")
    with pytest.raises(MlopsError, match=r"is removed, but .* is live in staging"):
        judged(world, base)


@pytest.mark.slow
def test_a_withdrawal_is_judged_deployed_and_recorded_and_another_bundle_can_follow(world: World) -> None:
    live = world.register(1)
    deploy_accepted(world, world.release(live, None))
    base = world.repository.head()
    change = world.release(None, live)
    assert [line.split()[:2] for line in judged(world, base)] == [
        ["pass", "scope"],
        ["pass", "freshness"],
        ["pass", "freeze"],
    ]
    with GONE:
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)
    assert world.story()[1:] == [("withdrawal", "withdrawn", live, None)], "once"
    assert world.applied() is None
    assert Ledger(world.staging, MODEL).went_live() is None
    assert at_time(world.records(), datetime.now(UTC)) is None
    assert change.release.replaces == live
    following = world.register(2)
    deploy_accepted(world, world.release(following, None))
    assert world.live() == following


@pytest.mark.slow
def test_a_stale_withdrawal_is_refused_before_anything_is_applied(world: World) -> None:
    live = world.register(1)
    deploy_accepted(world, world.release(live, None))
    world.release(None, B)
    with GONE, pytest.raises(MlopsError, match="stale"):
        deploy(WorldTarget(world, lambda: pytest.fail("applied")), "staging", world.said.append)


@pytest.mark.slow
def test_a_withdrawal_that_is_merged_during_a_freeze_waits_for_its_end(world: World) -> None:
    """Its gates may have passed before the freeze began."""
    live = world.register(1)
    deploy_accepted(world, world.release(live, None))
    world.release(None, live)
    path = world.project.stack_file("staging")
    free = path.read_text()
    path.write_text(
        f"{free}    freezes:\n      - {{start: 2020-01-01T00:00:00Z, end: 2100-01-01T00:00:00Z, reason: x}}\n"
    )
    with GONE, pytest.raises(MlopsError, match="may not be withdrawn from staging now: it is frozen until 2100"):
        deploy(WorldTarget(world, lambda: pytest.fail("applied")), "staging", world.said.append)
    path.write_text(free)
    with GONE:
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)
    assert world.story()[1:] == [("withdrawal", "withdrawn", live, None)]
    path.write_text(
        f"{free}    freezes:\n      - {{start: 2020-01-01T00:00:00Z, end: 2100-01-01T00:00:00Z, reason: x}}\n"
    )
    with GONE:
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)  # what is withdrawn already stays so


@pytest.mark.slow
def test_nothing_is_recorded_while_the_rollout_exists(world: World) -> None:
    live = world.register(1)
    deploy_accepted(world, world.release(live, None))
    with (
        mock.patch("pipelines.promotion.withdrawal.check_gone", side_effect=MlopsError("it still exists")),
        pytest.raises(MlopsError, match="still exists"),
    ):
        record_withdrawal(world.staging, release(None, live), world.attribution())
    assert len(world.story()) == 1
