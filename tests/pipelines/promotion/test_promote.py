from __future__ import annotations

import json
import signal
from typing import Any
from unittest import mock

import boto3
import pytest

from pipelines.declarations.digests import digest_of_value
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.facts.gather import Change
from pipelines.promotion.promote import (
    RefusedError,
    StaleReleaseError,
    admit,
    promote,
    take_live,
)
from pipelines.promotion.report import read_report
from pipelines.registry import bundles, evidence, store
from pipelines.registry.ledger import Entry, Event, Ledger
from pipelines.registry.quarantine import Quarantined, quarantine
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, World, accepted, empty
from tests.processes import Moments, start


def go(world: World, change: Change, **effects: Any) -> Entry:
    """Promote, judged by every gate."""
    return promote(
        world.project, world.repository, world.descriptors, change, world.context(), world.effects(**effects)
    )


def go_on(world: World, change: Change, **effects: Any) -> Entry:
    """Promote what every gate lets pass: quicker, for what comes after the judgement."""
    with mock.patch("pipelines.promotion.promote.gather", accepted):
        return go(world, change, **effects)


def one_after_another(world: World, seed: int) -> tuple[str, str]:
    """A bundle that is live in staging, and world."""
    live = world.register(seed)
    go_on(world, world.release(live, None))
    return live, world.register(seed + 1)


def test_a_bundle_that_passes_goes_live_and_is_recorded_with_all_that_was_known(world: World) -> None:
    digest = world.ready(1)
    change = world.release(digest, None)
    context = world.context(pull_request=12, approvers=("bob", "eve"))
    entry = promote(world.project, world.repository, world.descriptors, change, context, world.effects())
    assert (world.live(), world.story()) == (digest, [("promotion", "verified", digest, digest)])
    event = entry.event
    assert (event.before, event.pull_request, event.approvers, event.actor) == (None, 12, ("bob", "eve"), "ann")
    assert event.commit == world.repository.head() != event.source_commit
    assert (event.dataset, event.run, event.source_commit) == ("diabetes-patients@1", "run-1", world.start)
    gates = world.project.model(MODEL).gates.model_dump(mode="json")
    assert event.policy == digest_of_value(gates)
    assert event.attempt == f"{event.commit}/verified"
    assert set(event.verdicts.values()) == {"pass"} and len(event.verdicts) == 16
    assert event.evidence == evidence.digests_of_statements(world.dev, MODEL, digest)
    assert event.report is not None
    report = json.loads(read_report(world.staging, MODEL, event.report))
    assert report["facts"]["release"]["bundle"] == digest
    assert [v["outcome"] for v in report["verdicts"]] == ["pass"] * 16
    assert bundles.fetch(world.staging, MODEL, digest).digest == digest


def test_nothing_is_recorded_before_the_endpoint_was_verified(world: World) -> None:
    digest = world.register(1)
    seen: list[int] = []

    def say(text: str) -> None:
        seen.append(Ledger(world.staging, MODEL).newest())
        world.said.append(text)

    go_on(world, world.release(digest, None), say=say)
    assert [text.split(":")[0] for text in world.said] == [
        "16 of 16 gates pass",
        "the bundle is in the registry of staging",
        "applied",
        "rolled out",
        "verified",
    ]
    assert seen == [0] * 5 and Ledger(world.staging, MODEL).newest() == 1


def test_running_it_again_records_nothing_twice_and_applies_and_verifies_again(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)
    first = go_on(world, change)
    world.set_live(None)
    world.said.clear()
    assert go_on(world, change) == first
    assert (world.live(), len(world.records())) == (digest, 1)
    assert world.said == [f"{MODEL} in staging is recorded as live already", "applied", "rolled out"]
    admitted = admit(world.project, world.repository, world.descriptors, change, world.context())
    assert (admitted.release, admitted.recorded, admitted.live) == (change.release, first, digest)


def test_a_release_that_is_live_already_stays_recorded_when_another_was_refused_since(world: World) -> None:
    """Its replaces is long out of date; that is no reason to refuse an environment that is as git says."""
    digest, other = world.ready(1), world.register(2)
    change = world.release(digest, None)
    went_live = go(world, change)
    with pytest.raises(RefusedError):
        go(world, world.release(other, digest))
    world.release(digest, None)
    assert go(world, change) == went_live
    assert [result for _, result, _, _ in world.story()] == ["verified", "refused"]


def test_a_refused_release_is_recorded_with_its_verdicts_and_changes_nothing(world: World) -> None:
    good, bad = world.ready(1), world.register(2)
    go(world, world.release(good, None))
    with pytest.raises(RefusedError, match="order: it was never verified in dev") as caught:
        go(world, world.release(bad, good))
    assert "soak" in str(caught.value) and "promote it to dev first" in str(caught.value)
    assert (world.live(), world.applied()) == (good, good)
    event = world.records()[-1].event
    assert (event.result, event.before, event.to, event.live) == ("refused", good, bad, good)
    assert {gate for gate, outcome in event.verdicts.items() if outcome != "pass"} == {"order", "soak"}
    assert event.reason == "order: it was never verified in dev; soak: dev no longer serves it"
    assert str(caught.value).splitlines() == [
        f"{MODEL} may not go to staging:",
        "  order: it was never verified in dev; promote it to dev first",
        "  soak: dev no longer serves it; promote the bundle that is live there",
    ]
    assert event.evidence, "it is known of the environment that it comes from"
    assert event.report is not None
    verdicts = {v["gate"]: v for v in json.loads(read_report(world.staging, MODEL, event.report))["verdicts"]}
    assert verdicts["order"]["outcome"] == "fail"
    assert bundles.list_digests(world.staging, MODEL) == [good]


def test_a_release_of_a_bundle_that_nobody_vouches_for_is_recorded_with_what_is_known(world: World) -> None:
    manifest, files = world.bundle(60)
    bundles.push(world.dev, manifest, files)
    with pytest.raises(RefusedError, match="signature: there is no signed provenance"):
        go(world, world.release(manifest.digest, None))
    event = world.records()[-1].event
    assert (event.policy, event.dataset, event.source_commit, event.evidence) == (None, "", None, {})
    assert (event.verdicts["signature"], event.verdicts["thresholds"]) == ("fail", "inconclusive")


def test_what_the_evidence_says_is_recorded_of_a_bundle_of_which_a_file_was_changed(world: World) -> None:
    digest = world.ready(61)
    key = bundles.prefix_of(MODEL, digest) + "card.md"
    boto3.client("s3").put_object(Bucket=world.dev.registry_bucket, Key=key, Body=b"# B card\n")
    with pytest.raises(RefusedError, match=r"digest: card\.md was changed"):
        go(world, world.release(digest, None))
    event = world.records()[-1].event
    assert (event.dataset, event.source_commit) == ("diabetes-patients@1", world.start)


def test_a_refused_release_is_recorded_once_however_often_it_is_tried(world: World) -> None:
    change = world.release(world.register(1), None)
    for _ in range(2):
        with pytest.raises(RefusedError):
            go(world, change)
    assert len(world.records()) == 1


def test_a_stale_release_is_refused_before_anything_is_judged(world: World) -> None:
    first, second = one_after_another(world, 1)
    stale = world.release(second, world.register(3))
    with pytest.raises(StaleReleaseError) as caught:
        go_on(world, stale)
    assert caught.value.what == f"staging runs {first} of {MODEL}; the release replaces {stale.release.replaces}"
    assert caught.value.fix == "propose the release again, against what is live"
    assert len(world.records()) == 1 and world.live() == first


def test_a_release_that_became_stale_while_it_rolled_out_is_not_recorded_as_live(world: World) -> None:
    theirs, mine = world.register(1), world.register(2)
    change = world.release(mine, None)

    def overtaken(model: str) -> None:
        world.follow(model)
        event = Event.of(attempt="x", action="promotion", result="verified", before=None, to=theirs, live=theirs)
        Ledger(world.staging, MODEL).append(lambda _: event)

    with pytest.raises(StaleReleaseError, match=f"staging runs {theirs} of {MODEL}; the release replaces nothing"):
        go_on(world, change, follow=overtaken)
    assert world.story() == [("promotion", "verified", theirs, theirs)]


def test_a_release_that_failed_is_recorded_though_something_else_went_live_meanwhile(world: World) -> None:
    theirs, mine = world.register(1), world.register(2)
    change = world.release(mine, None)

    def overtaken(_: str) -> None:
        event = Event.of(attempt="x", action="promotion", result="verified", before=None, to=theirs, live=theirs)
        Ledger(world.staging, MODEL).append(lambda _: event)
        raise MlopsError("the rollout was aborted")

    with pytest.raises(MlopsError, match="aborted"):
        go_on(world, change, follow=overtaken)
    assert world.story() == [("promotion", "verified", theirs, theirs), ("promotion", "failed", mine, theirs)]


def test_two_that_take_the_same_bundle_live_leave_one_record(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)

    def also(model: str) -> None:
        world.follow(model)
        promote(
            world.project,
            world.repository,
            world.descriptors,
            change,
            world.context(commit="f" * 40),
            world.effects(),
        )
        refused = Event.of(
            attempt="x", action="promotion", result="refused", before=digest, to=world.register(2), live=digest
        )
        Ledger(world.staging, MODEL).append(lambda _: refused)

    entry = go_on(world, change, follow=also)
    assert entry == world.records()[0]
    assert [result for _, result, _, _ in world.story()] == ["verified", "refused"]


@pytest.mark.parametrize("when", ["apply", "follow"])
def test_a_release_that_fails_on_the_way_is_recorded_and_traffic_goes_back(world: World, when: str) -> None:
    good, bad = one_after_another(world, 1)

    def fail(*_: str) -> None:
        world.set_live(bad)
        raise MlopsError("the rollout was aborted: canary answers 500")

    with pytest.raises(MlopsError, match="canary answers 500"):
        go_on(world, world.release(bad, good), **{when: fail})
    assert world.live() == good, "traffic is with what the ledger says is live"
    event = world.records()[-1].event
    assert (event.result, event.to, event.live) == ("failed", bad, good)
    assert event.reason == "the rollout was aborted: canary answers 500"
    assert world.said[-1] == f"traffic went back to {good}"
    assert set(event.verdicts.values()) == {"pass"}


def test_a_release_that_predicts_something_else_in_the_endpoint_is_taken_back(world: World) -> None:
    good, bad = one_after_another(world, 1)
    change = world.release(bad, good)

    def serve_another(_: str) -> None:
        world.set_live(good)

    with pytest.raises(MlopsError, match=f"serves: expected {bad}, found {good}"):
        go_on(world, change, follow=serve_another)
    assert world.story()[-1] == ("promotion", "failed", bad, good)
    go_on(world, change)
    assert world.story()[-1] == ("promotion", "verified", bad, bad), "trying again is not held against it"


def test_a_failure_whose_traffic_could_not_be_taken_back_says_so(world: World) -> None:
    good, bad = one_after_another(world, 1)

    def fail(*_: str) -> None:
        raise MlopsError("the cluster does not answer")

    with pytest.raises(MlopsError):
        go_on(world, world.release(bad, good), follow=fail, take_back=fail)
    assert "traffic could not be taken back: the cluster does not answer" in world.records()[-1].event.reason


def test_a_bundle_that_cannot_be_brought_over_fails_before_anything_is_applied(world: World) -> None:
    good, bad = one_after_another(world, 1)
    with (
        mock.patch("pipelines.promotion.promote.replicate", side_effect=MlopsError("access denied")),
        pytest.raises(MlopsError, match="access denied"),
    ):
        go_on(
            world,
            world.release(bad, good),
            apply=lambda: pytest.fail("applied"),
            take_back=lambda *_: pytest.fail("moved"),
        )
    assert world.story()[-1] == ("promotion", "failed", bad, good)


def test_the_first_release_has_nothing_to_be_taken_back_to(world: World) -> None:
    digest = world.register(1)

    def fail(*_: str) -> None:
        raise MlopsError("the rollout was aborted")

    with pytest.raises(MlopsError, match="aborted"):
        go_on(world, world.release(digest, None), follow=fail, take_back=lambda *_: pytest.fail("moved"))
    assert world.story() == [("promotion", "failed", digest, None)]
    assert world.records()[-1].event.reason == "the rollout was aborted"


def test_admitting_applies_nothing_and_taking_live_judges_nothing(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)
    with mock.patch("pipelines.promotion.promote.gather", accepted):
        admitted = admit(world.project, world.repository, world.descriptors, change, world.context())
    assert (world.applied(), world.story(), admitted.recorded) == (None, [], None)
    with mock.patch("pipelines.promotion.promote.gather", side_effect=AssertionError):
        entry = take_live(world.project, world.descriptors, admitted, world.effects())
    assert entry.event.live == world.live() == digest


def test_a_release_to_an_environment_that_is_not_up_or_of_no_bundle_is_an_error(world: World) -> None:
    change = world.release(world.register(1), None)
    for missing in ("staging", "dev"):
        up = {name: d for name, d in world.descriptors.items() if name != missing}
        with pytest.raises(MlopsError) as caught:
            promote(world.project, world.repository, up, change, world.context(), world.effects())
        assert (caught.value.what, caught.value.fix) == (f"{missing} is not up", f"mlops up --env {missing}")
    with pytest.raises(MlopsError) as caught:
        go(world, world.release(None, None))
    assert caught.value.what == f"the release of {MODEL} to staging names no bundle"


def test_a_release_that_replaces_what_is_not_there_or_leaves_out_what_is_says_so(world: World) -> None:
    one, other = world.register(1), world.register(2)
    with pytest.raises(StaleReleaseError) as caught:
        go_on(world, world.release(one, other), apply=lambda: pytest.fail("applied"))
    assert caught.value.what == f"staging runs nothing of {MODEL}; the release replaces {other}"
    go_on(world, world.release(one, None))
    with pytest.raises(StaleReleaseError) as caught:
        go_on(world, world.release(other, None))
    assert caught.value.what == f"staging runs {one} of {MODEL}; the release replaces nothing"


# --- a rollback's commit ----------------------------------------------------------------------------------------------


def bad_and_good(world: World, seed: int) -> tuple[str, str]:
    """Staging, where a bad bundle replaced a good one."""
    good, bad = one_after_another(world, seed)
    go_on(world, world.release(bad, good))
    return bad, good


def block(world: World, digest: str, reason: str = "it answers nonsense") -> None:
    at = world.records()[-1].event.at
    quarantine(world.staging, MODEL, Quarantined(bundle=digest, reason=reason, at=at))


def test_a_rollbacks_commit_is_taken_live_without_being_judged_as_a_promotion(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    block(world, bad)
    change = world.release(good, bad)
    with mock.patch("pipelines.promotion.promote.gather", side_effect=AssertionError("it was judged")):
        entry = go(world, change)
    assert world.live() == good
    assert world.story()[-1] == ("rollback", "verified", good, good)
    assert entry.event.reason == "it answers nonsense"
    assert f"it goes back from a quarantined bundle to {good}, which was verified here before" in world.said


def test_going_back_is_a_promotion_like_any_other_while_what_is_live_is_not_quarantined(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    with pytest.raises(RefusedError, match="order: it was never verified in dev"):
        go(world, world.release(good, bad))


def test_going_back_to_a_bundle_that_is_quarantined_itself_is_judged_and_refused(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    block(world, bad)
    block(world, good, "worse still")
    with pytest.raises(RefusedError, match="quarantine: it was rolled back: worse still"):
        go(world, world.release(good, bad))


def test_going_from_a_quarantined_bundle_to_one_that_was_never_verified_here_is_judged(world: World) -> None:
    bad, _ = bad_and_good(world, 1)
    block(world, bad)
    with pytest.raises(RefusedError, match="order"):
        go(world, world.release(world.register(3), bad))


def test_a_rollback_that_is_under_way_is_not_undone_by_deploying_the_bad_release_again(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    change = Change(world.project.release(MODEL, "staging"), (RELEASE,))
    block(world, bad)
    world.set_live(good)
    with pytest.raises(RefusedError) as caught:
        go_on(world, change)
    assert caught.value.what == f"{MODEL} in staging is being rolled back: it answers nonsense"
    assert caught.value.fix == "run the rollback again, which finishes it"
    assert world.live() == good


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def promote_watched(world: World, change: Change, fatal: int = 0) -> list[str]:
    """A promotion that passes by moments: each effect, each step that it tells, before and after each kind of write."""
    moments = Moments(fatal)
    kinds = ("reports/", "ledger/", f"/{bundles.MANIFEST}")
    write = moments.writes(store.put_new, lambda key: any(kind in key for kind in kinds))

    def applying() -> None:
        moments.pass_by("before apply")
        world.apply()

    def following(model: str) -> None:
        moments.pass_by("before follow")
        world.follow(model)

    with mock.patch.object(store, "put_new", write):
        go_on(world, change, apply=applying, follow=following, say=moments.pass_by)
    return moments.names


def test_a_promotion_that_is_killed_at_any_moment_and_run_again_ends_like_one_that_was_not(
    world: World,
) -> None:
    good, better = world.register(1), world.register(2)
    change = world.release(better, good)

    def begin() -> None:
        for kind in ("bundles/", "evidence/", "reports/"):
            empty(world.staging.registry_bucket, kind)
        empty(world.staging.registry_bucket, f"ledger/{MODEL}/0000000002")
        world.set_live(good)

    event = Event.of(attempt="first", action="promotion", result="verified", before=None, to=good, live=good)
    Ledger(world.staging, MODEL).append(lambda _: event)
    begin()
    moments = promote_watched(world, change)
    expected = world.end_state()
    assert expected["story"] == [("promotion", "verified", good, good), ("promotion", "verified", better, better)]
    assert (expected["live"], len(moments)) == (better, 13)
    for fatal, name in enumerate(moments, 1):
        begin()
        process = start(promote_watched, world, change, fatal)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"it lived through {name}"
        so_far = world.story()
        assert so_far in (expected["story"][:1], expected["story"]), f"killed at {name}"
        assert len(so_far) == 1 or world.live() == better, "it is recorded only when it is live"
        go_on(world, change)
        assert world.end_state() == expected, f"killed at {name}"
