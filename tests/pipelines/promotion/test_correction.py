"""Corrections: git, the ledger and the cluster agree again after a deployment that was refused or failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.release import Release
from pipelines.promotion.admission import GateRefusedError
from pipelines.promotion.comments.correction_comment import render_correction
from pipelines.promotion.correction import CorrectionFacts, judge_correction
from pipelines.promotion.deploy import deploy
from pipelines.promotion.judge import judge_change
from pipelines.promotion.propose import propose_live, propose_next, write_live_release, write_release
from pipelines.registry.bundle_quarantine import Quarantined, quarantine
from tests.clones import commit_all, git
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, World, WorldTarget
from tests.pipelines.promotion.test_deploy import deploy_accepted

A = "sha256:" + "a" * 64
NAMES_A = Release(model=MODEL, environment="staging", bundle=A, replaces=None)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, []),
        ({"changed_files": (RELEASE, "README.md")}, ["scope"]),
        ({"quarantined": {A: "it answers nonsense"}}, ["quarantine"]),
    ],
)
def test_a_correction_is_alone_and_names_no_bundle_that_is_being_rolled_back(
    changes: dict[str, Any], refused: list[str]
) -> None:
    values: dict[str, Any] = {"release": NAMES_A, "changed_files": (RELEASE,), "quarantined": {}}
    verdicts = judge_correction(CorrectionFacts(**values | changes))
    assert [verdict.gate for verdict in verdicts if verdict.outcome != "pass"] == refused
    text = render_correction(NAMES_A, verdicts, "nothing changes", "run 1")
    assert f"### {'❌' if refused else '✅'} {MODEL} {'may not' if refused else 'may'} keep the bundle" in text
    assert "releases nothing" in text


# --- in a project -----------------------------------------------------------------------------------------------------


def judged(world: World, base: str) -> list[str]:
    """Judge HEAD by every gate, without a pull request; return the outcomes and the gates."""
    said: list[str] = []
    judge_change(WorldTarget(world, lambda: None), base, None, said.append)
    return [" ".join(line.split()[:2]) for line in said]


def deploy_main(world: World, **steps: Any) -> None:
    with world.cluster(**steps):
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)


def refuse_next(world: World, live: str) -> str:
    """Merge and deploy a release that the gates refuse; return its bundle, which main then names."""
    bad = world.register(7)  # never verified in dev
    world.release(bad, live)
    with pytest.raises(GateRefusedError, match="never verified in dev"):
        deploy_main(world)
    return bad


def fail_next(world: World, live: str) -> str:
    """Merge and deploy a release whose rollout fails; return its bundle, which main then names."""
    bad = world.ready(7)
    world.release(bad, live)

    def fail(_: str) -> None:
        raise MlopsError("the pods do not become ready")

    with pytest.raises(MlopsError, match="do not become ready"):
        deploy_main(world, follow=fail)
    return bad


@pytest.fixture
def live(world: World) -> str:
    """A bundle that is live in staging."""
    digest = world.ready(1)
    deploy_accepted(world, world.release(digest, None))
    return digest


@pytest.mark.slow
@pytest.mark.parametrize("break_it", [refuse_next, fail_next])
def test_git_revert_brings_git_ledger_and_cluster_into_agreement(world: World, live: str, break_it: Any) -> None:
    break_it(world, live)
    assert world.live() == live
    records, base = len(world.records()), world.repository.head()
    git(world.root, "revert", "--no-edit", "HEAD")
    git(world.root, "push", "--quiet", "origin", "HEAD:main")
    assert judged(world, base) == ["pass scope", "pass freshness", "pass quarantine"]
    deploy_main(world)
    assert (world.applied(), world.live(), len(world.records())) == (live, live, records)
    assert world.project.release(MODEL, "staging").bundle == live


@pytest.mark.slow
@pytest.mark.parametrize("break_it", [refuse_next, fail_next])
def test_the_next_good_release_goes_through(world: World, live: str, break_it: Any) -> None:
    break_it(world, live)
    good, base = world.ready(2), world.repository.head()
    write_release(world.project, world.descriptors, MODEL, "staging", good)
    assert world.project.release(MODEL, "staging").replaces == live, "what is live, not what main names"
    commit_all(world.root, "the next release")
    assert set(judged(world, base)) >= {"pass freshness", "pass champion", "pass soak", "pass image"}
    deploy_main(world)
    assert (world.live(), world.story()[-1]) == (good, ("promotion", "verified", good, good))


@pytest.mark.slow
def test_one_command_names_what_is_live_as_the_revert_would(world: World, live: str) -> None:
    before = (world.root / RELEASE).read_text()
    refuse_next(world, live)
    opened: list[Any] = []

    def propose(_gh: Any, branch: str, paths: Any, title: str, body: str) -> Any:
        opened.append((branch, paths, title))
        return mock.Mock(number=5, url="u")

    with (
        mock.patch("pipelines.promotion.propose.pull_requests.propose", propose),
        mock.patch("pipelines.promotion.propose.Gh"),
    ):
        assert propose_live(WorldTarget(world, lambda: None), MODEL, "staging", world.said.append) == 5
        assert (world.root / RELEASE).read_text() == before
        assert propose_live(WorldTarget(world, lambda: None), MODEL, "staging", world.said.append) is None
    assert [(branch, title) for branch, _, title in opened] == [
        (f"release/staging/{MODEL}", f"Name what is live of {MODEL} in staging")
    ]


@pytest.mark.slow
def test_after_a_first_release_that_failed_the_file_names_no_bundle(world: World) -> None:
    bad = world.ready(7)
    world.release(bad, None)

    def fail(_: str) -> None:
        raise MlopsError("the pods do not become ready")

    with pytest.raises(MlopsError, match="do not become ready"):
        deploy_main(world, follow=fail)
    write_live_release(world.project, world.descriptors, MODEL, "staging")
    assert (world.project.release(MODEL, "staging").bundle, world.project.release(MODEL, "staging").replaces) == (
        None,
        None,
    )
    base = world.repository.head()
    commit_all(world.root, "no bundle")
    assert judged(world, base) == [f"pass {MODEL}"]
    deploy_main(world)
    assert world.applied() is None


@pytest.mark.slow
def test_a_bundle_that_a_rollback_leaves_is_no_correction(world: World, live: str) -> None:
    """It is live until the rollback ends, and quarantined."""
    quarantine(world.staging, MODEL, Quarantined(bundle=live, reason="nonsense", at=datetime.now(UTC)))
    world.release(world.register(7), live)
    base = world.repository.head()
    world.release(live, None)
    with pytest.raises(MlopsError, match=r"refused: quarantine: .* is being rolled back: nonsense"):
        judged(world, base)


@pytest.mark.slow
def test_only_what_is_live_is_proposed_to_the_next_environment(world: World) -> None:
    digest = world.register(1)
    world.release(digest, None, "dev")
    with mock.patch("pipelines.promotion.propose.propose_release") as proposed:
        propose_next(WorldTarget(world, lambda: None), "dev", world.said.append)
        proposed.assert_not_called()
        assert world.said[-1] == f"dev does not run {digest} of {MODEL}; it is not proposed to staging"
        world.verify_in_dev(digest)
        propose_next(WorldTarget(world, lambda: None), "dev", world.said.append)
        assert proposed.call_args.args[1:4] == (MODEL, "staging", digest)


@pytest.mark.slow
def test_a_bundle_that_was_rolled_back_is_not_proposed_again(world: World) -> None:
    """The environment before may go on running it, and each of its deployments proposes what it runs."""
    digest = world.register(1)
    world.release(digest, None, "dev")
    world.verify_in_dev(digest)
    quarantine(world.staging, MODEL, Quarantined(bundle=digest, reason="nonsense", at=datetime.now(UTC)))
    with mock.patch("pipelines.promotion.propose.propose_release") as proposed:
        propose_next(WorldTarget(world, lambda: None), "dev", world.said.append)
    proposed.assert_not_called()
    expected = f"{digest} of {MODEL} was rolled back: nonsense (in staging); it is not proposed to staging"
    assert world.said[-1] == expected
