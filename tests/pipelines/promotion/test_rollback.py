from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.outages import OutageError
from pipelines.promotion.attempt import Attribution
from pipelines.promotion.facts.gather import ReleaseChange
from pipelines.promotion.restore import restore_release
from pipelines.promotion.rollback import roll_back, stop_trial
from pipelines.promotion.rollback_plan import RollbackPlan, TrafficFacts, plan_rollback, read_facts_of_traffic
from pipelines.registry import store
from pipelines.registry.bundle_quarantine import Quarantined, quarantine, quarantined
from pipelines.registry.ledger import Entry, Event, Ledger
from tests.clones import git
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, World, WorldTarget, accepted, empty
from tests.processes import Moments, start

pytestmark = pytest.mark.slow

REASON = "mae 61.2 is over 55 since noon"


@pytest.fixture
def world(first_world: World) -> World:
    first_world.reset(keep_bundles=True)
    return first_world


def record(world: World, digest: str, before: str | None, *, result: str = "verified", live: str | None = None) -> None:
    """Append a record to the ledger of staging."""
    after = digest if result == "verified" else live
    values: dict[str, Any] = {"before": before, "to": digest, "live": after, "result": result}
    event = Event.of(attempt=f"{digest}/{result}", action="promotion", **values)
    Ledger(world.staging, MODEL).append(lambda _: event)


def serve(world: World, *seeds: int) -> list[str]:
    """Make bundles live in staging, one after the other, and return their digests."""
    digests, before = [], None
    for seed in seeds:
        digest = world.register(seed)
        world.bring(digest)
        record(world, digest, before)
        digests.append(digest)
        before = digest
    world.set_live(digests[-1])
    world.release(digests[-1], digests[-2] if len(digests) > 1 else None)
    return digests


def back(
    world: World,
    reason: str = REASON,
    *,
    move: Callable[[str, str], object] | None = None,
    restore: Callable[..., object] = restore_release,
    say: Callable[[str], None] | None = None,
    attribution: Attribution | None = None,
    **options: Any,
) -> Entry:
    """Roll the model back in staging; the steps can be replaced."""
    target, log = WorldTarget(world, world.apply), say or world.said.append
    with world.cluster(move=move), mock.patch("pipelines.promotion.rollback.restore_release", restore):
        return roll_back(target, "staging", MODEL, reason, attribution or world.attribution(), log, **options)


def stop(world: World, *, dies_before: str = "", error: type[BaseException] = RuntimeError) -> Entry:
    """Stop the bundle on trial in staging; can be killed before a step."""
    with world.cluster(), ExitStack() as stack:
        if dies_before:
            stack.enter_context(mock.patch(f"pipelines.promotion.rollback.{dies_before}", side_effect=error))
        target = WorldTarget(world, world.apply)
        return stop_trial(target, "staging", MODEL, REASON, world.attribution(), world.said.append)


def plan(world: World) -> RollbackPlan:
    with world.cluster():
        return plan_rollback(read_facts_of_traffic(world.project, world.staging, MODEL), MODEL, "staging")


def deploy(world: World) -> Entry:
    """Deploy the release on main."""
    git(world.root, "fetch", "--quiet", "origin")
    git(world.root, "checkout", "--quiet", "--detach", "origin/main")
    change = ReleaseChange(world.project.release(MODEL, "staging"), (RELEASE,))
    return world.take_live(world.admit(change))


def test_a_rollback_moves_traffic_first_then_git_and_records_it_last(world: World) -> None:
    good, bad = serve(world, 1, 2)
    entry = back(world)
    assert world.said == [
        f"rolling back from {bad} to {good}",
        "the earlier bundle loads, and its golden predictions match",
        "the bad bundle is quarantined",
        "traffic moved in 0.00 s",
        "main names the earlier bundle",
    ]
    assert world.live() == good
    assert quarantined(world.staging, MODEL) == {bad: REASON}
    git(world.root, "fetch", "--quiet", "origin")
    released = git(world.root, "show", f"origin/main:{RELEASE}")
    assert f"bundle: {good}" in released and f"replaces: {bad}" in released
    event = entry.event
    assert (event.action, event.result, event.before, event.to, event.live) == ("rollback", "verified", bad, good, good)
    assert (event.reason, event.actor, event.dataset) == (REASON, "ann", "diabetes-patients@1")
    head = world.repository.head()
    assert (event.commit, event.source_commit, event.run) == (head, world.start, "run-1") and head != world.start
    assert world.records()[-1] == entry


def test_a_rollback_without_a_commit_is_recorded_without_one(world: World) -> None:
    serve(world, 1, 2)
    entry = back(world, attribution=world.attribution(commit=""))
    assert entry.event.commit is None


def test_traffic_moves_to_the_earlier_bundle_and_git_gets_both_bundles(world: World) -> None:
    good, bad = serve(world, 1, 2)
    calls: list[Any] = []

    def move(model: str, digest: str) -> None:
        calls.append((model, digest))
        world.move(model, digest)

    def restore(project: Project, *arguments: str) -> None:
        calls.append(arguments)

    back(world, move=move, restore=restore)
    assert calls == [(MODEL, good), (MODEL, "staging", good, bad, REASON)]


def test_a_second_rollback_for_the_same_reason_does_nothing(world: World) -> None:
    serve(world, 1, 2, 3)
    first, state = back(world), None
    state = world.end_state()
    refuse = mock.Mock(side_effect=AssertionError("changed something"))
    assert back(world, f"  {REASON}\n", move=refuse, restore=refuse) == first
    assert world.end_state() == state
    assert "give another reason to go further back" in world.said[-1]


def test_a_second_rollback_does_nothing_even_after_a_refused_promotion(world: World) -> None:
    """The newest ledger record is then that of the refused promotion."""
    oldest, good, bad = serve(world, 1, 2, 3)
    first = back(world)
    record(world, bad, good, result="refused", live=good)
    assert back(world) == first
    assert world.live() == good != oldest


def test_a_rollback_for_another_reason_goes_further_back(world: World) -> None:
    oldest, good, bad = serve(world, 1, 2, 3)
    back(world)
    entry = back(world, "the one before is wrong as well")
    assert (world.live(), entry.event.live) == (oldest, oldest)
    assert set(quarantined(world.staging, MODEL)) == {bad, good}


def test_the_same_reason_rolls_back_again_once_another_bundle_is_live(world: World) -> None:
    good, bad = serve(world, 2, 3)
    back(world)
    newer = world.register(1)
    record(world, newer, good)
    world.set_live(newer)
    world.release(newer, good)
    assert back(world).event.live == good
    assert set(quarantined(world.staging, MODEL)) == {bad, newer}


def test_a_rollback_skips_quarantined_failed_and_refused_bundles(world: World) -> None:
    oldest, blocked, bad = serve(world, 2, 3, 4)
    for result in ("failed", "refused"):
        record(world, world.register(1), bad, result=result, live=bad)
    at = world.records()[-1].event.at
    quarantine(world.staging, MODEL, Quarantined(bundle=blocked, reason="known to be bad", at=at))
    assert plan(world) == RollbackPlan(bad, oldest)


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ((), f"{MODEL} is not live in staging, so there is nothing to roll back"),
        (
            (1,),
            f"no other bundle of {MODEL} was ever verified in staging, so there is nothing to roll back to\n"
            f"  fix: release a good bundle, or take the endpoint down: mlops withdraw {MODEL} --env staging",
        ),
    ],
)
def test_a_rollback_without_an_earlier_bundle_changes_nothing(world: World, seeds: tuple[int, ...], says: str) -> None:
    if seeds:
        serve(world, *seeds)
    before = world.end_state()
    with pytest.raises(MlopsError) as caught:
        back(world)
    assert str(caught.value) == says
    assert world.end_state() == before


def test_a_model_that_was_only_ever_refused_is_not_live(world: World) -> None:
    record(world, world.register(1), None, result="refused")
    with pytest.raises(MlopsError, match="is not live in staging"):
        plan(world)


def test_a_rollback_to_a_broken_bundle_is_refused(world: World) -> None:
    wrong = world.register(20, golden=7.0)
    world.bring(wrong)
    record(world, wrong, None)
    bad = world.register(21)
    record(world, bad, wrong)
    world.set_live(bad)
    with pytest.raises(MlopsError, match=r"the bundle to roll back to does not work: golden\.json") as caught:
        back(world)
    assert caught.value.fix == "release a good bundle"
    assert world.live() == bad and quarantined(world.staging, MODEL) == {}


def test_a_rollback_needs_a_reason(world: World) -> None:
    serve(world, 1, 2)
    with pytest.raises(MlopsError) as caught:
        back(world, " \n ")
    assert (caught.value.what, caught.value.fix) == ("a rollback needs a reason", "give a reason in words")


def test_a_long_reason_is_shortened_and_recorded(world: World) -> None:
    _, bad = serve(world, 1, 2)
    reason = "too slow: \x1b[31m" + "very " * 2000
    entry = back(world, reason)
    kept = quarantined(world.staging, MODEL)[bad]
    assert kept == entry.event.reason and kept.startswith("too slow: �[31mvery ") and kept.endswith("…")
    assert back(world, reason) == entry


def test_a_rollback_overtaken_by_a_promotion_is_not_recorded(world: World) -> None:
    _, bad = serve(world, 2, 3)
    newer = world.register(1)

    def overtaken(*_: object) -> None:
        record(world, newer, bad)

    with pytest.raises(MlopsError, match=f"{newer} went live in staging during the rollback") as caught:
        back(world, restore=overtaken)
    assert caught.value.fix == "look at `mlops history`"
    assert world.records()[-1].event.to == newer


# --- bundles on trial -------------------------------------------------------------------------------------------------

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (TrafficFacts(B, B, [B, A]), RollbackPlan(B, A)),
        (TrafficFacts(C, B, [B, A]), RollbackPlan(C, B, is_trial=True)),
        (TrafficFacts(A, B, [B, A]), RollbackPlan(A, B, is_trial=True)),  # an earlier bundle, released again
        (TrafficFacts(A, B, [B, A], {B: "bad"}), RollbackPlan(B, A)),  # a rollback that has not finished
        (TrafficFacts(B, B, [B, A], {B: "bad"}), RollbackPlan(B, A)),
        (TrafficFacts(C, B, [B, A], {B: "bad"}), RollbackPlan(C, A, is_trial=True)),  # a fix on trial
        (TrafficFacts(C, B, [B, A], {C: "bad"}), RollbackPlan(C, B, is_trial=True)),  # a stop that has not moved
        (TrafficFacts(None, B, [B, A]), RollbackPlan(B, A)),
    ],
)
def test_a_rollback_leaves_the_bundle_on_trial_if_there_is_one(facts: TrafficFacts, expected: RollbackPlan) -> None:
    assert plan_rollback(facts, MODEL, "staging") == expected


@pytest.mark.parametrize(("suspect", "expected"), [(B, RollbackPlan(B, A)), (C, RollbackPlan(C, B, is_trial=True))])
def test_a_rollback_leaves_the_bundle_that_an_alarm_names(suspect: str, expected: RollbackPlan) -> None:
    assert plan_rollback(TrafficFacts(C, B, [B, A]), MODEL, "staging", suspect=suspect) == expected


def test_an_alarm_about_the_live_bundle_leaves_it_while_another_is_on_trial(world: World) -> None:
    oldest, live, _ = on_trial(world)
    entry = back(world, automatic=True, suspect=live)
    assert (world.aborted, world.live(), entry.event.live) == ([], oldest, oldest)
    assert set(quarantined(world.staging, MODEL)) == {live}
    assert deploy(world) == entry


def test_the_first_bundle_on_trial_cannot_be_stopped() -> None:
    with pytest.raises(MlopsError, match="nothing to roll back to"):
        plan_rollback(TrafficFacts(A, None), MODEL, "staging")


def on_trial(world: World) -> tuple[str, str, str]:
    """Serve two bundles, and put a third on trial; return all three."""
    oldest, live = serve(world, 1, 2)
    trial = world.register(3)
    world.release(trial, live)
    (world.state / "applied").write_text(trial)
    return oldest, live, trial


@pytest.mark.parametrize("verb", ["rollback", "stop"])
def test_a_bundle_on_trial_is_stopped_and_the_live_one_stays(world: World, verb: str) -> None:
    _, live, trial = on_trial(world)
    entry = back(world) if verb == "rollback" else stop(world)
    assert (world.aborted, world.applied(), world.live()) == ([trial], live, live)
    assert quarantined(world.staging, MODEL) == {trial: REASON}
    event = entry.event
    assert (event.action, event.result, event.before, event.to, event.live) == (
        "promotion",
        "failed",
        live,
        trial,
        live,
    )
    assert event.reason == f"stopped: {REASON}"
    git(world.root, "fetch", "--quiet", "origin")
    released = git(world.root, "show", f"origin/main:{RELEASE}")
    assert f"bundle: {live}" in released and f"replaces: {trial}" in released
    assert deploy(world).event.live == live


def test_nothing_is_stopped_if_nothing_is_on_trial(world: World) -> None:
    _, live = serve(world, 1, 2)
    state = world.end_state()
    with pytest.raises(MlopsError, match=f"no bundle of {MODEL} is on trial in staging: the Rollout names {live}"):
        stop(world)
    assert world.end_state() == state


@pytest.mark.parametrize("died", ["abort_rollout", "move_traffic", "_record", "restore_release", "verify"])
def test_a_stop_that_was_killed_can_be_run_again(world: World, died: str) -> None:
    _, live, trial = on_trial(world)

    class DiedError(BaseException):
        pass

    with pytest.raises(DiedError):
        stop(world, dies_before=died, error=DiedError)
    if died == "verify":  # everything is recorded and committed
        with pytest.raises(MlopsError, match="is on trial"):
            stop(world)
    else:
        stop(world)
    assert (world.applied(), world.live(), set(quarantined(world.staging, MODEL))) == (live, live, {trial})
    assert [result for _, result, to, _ in world.story() if to == trial] == ["failed"]
    assert deploy(world).event.live == live


def test_a_rollback_that_was_killed_while_it_stopped_a_trial_leaves_the_live_bundle(world: World) -> None:
    """Run again for the same reason, it does not roll the live bundle back."""
    oldest, live, trial = on_trial(world)

    class DiedError(BaseException):
        pass

    with pytest.raises(DiedError):
        back(world, restore=mock.Mock(side_effect=DiedError))
    back(world)
    assert world.live() == live != oldest
    assert set(quarantined(world.staging, MODEL)) == {trial}


# --- GitHub is down ---------------------------------------------------------------------------------------------------


def test_a_rollback_moves_traffic_while_github_is_down_and_finishes_when_it_answers(world: World) -> None:
    oldest, good, bad = serve(world, 1, 2, 3)
    for _ in range(2):  # run again too early, it does not go further back
        with world.origin_down(), pytest.raises(OutageError) as caught:
            back(world)
        assert caught.value.what.startswith(f"{MODEL} in staging runs {good}, but main still names {bad}: git ")
        assert "with the same reason" in caught.value.fix
        assert (world.live(), set(quarantined(world.staging, MODEL))) == (good, {bad})
        assert world.records()[-1].event.live == bad  # not finished
    entry = back(world)
    assert (world.live(), entry.event.live) == (good, good) != (oldest, oldest)
    assert f"bundle: {good}" in world.end_state()["release"]
    assert deploy(world) == entry


@pytest.mark.parametrize("verb", ["rollback", "stop"])
def test_a_trial_is_stopped_while_github_is_down_and_the_live_bundle_stays(world: World, verb: str) -> None:
    _, live, trial = on_trial(world)
    act = back if verb == "rollback" else stop
    with world.origin_down(), pytest.raises(OutageError, match=f"runs {live}, but main still names {trial}"):
        act(world)
    with world.origin_down(), pytest.raises(OutageError, match="whether main names another one is not known"):
        act(world)
    assert (world.applied(), world.live(), set(quarantined(world.staging, MODEL))) == (live, live, {trial})
    act(world)
    assert (world.live(), set(quarantined(world.staging, MODEL))) == (live, {trial})
    assert deploy(world).event.live == live


# --- two people at once -----------------------------------------------------------------------------------------------


def test_a_rollback_that_waited_for_another_one_does_not_go_further_back(world: World) -> None:
    _, good, bad = serve(world, 1, 2, 3)
    asked = datetime.now(UTC)
    first = back(world, "answers nonsense")
    state = world.end_state()
    with (
        mock.patch("pipelines.promotion.rollback.requested_at", return_value=asked),
        pytest.raises(
            MlopsError, match=f"has left {bad} since this rollback was requested at .* because: answers"
        ) as e,
    ):
        back(world, "the error rate is 9 %")
    assert e.value.what.endswith(f"{good} is live now")
    assert "If it is, run the workflow `rollback` again" in e.value.fix
    assert world.end_state() == state
    with mock.patch("pipelines.promotion.rollback.requested_at", return_value=asked):
        assert back(world, "answers nonsense") == first


def test_a_rollback_that_waited_for_a_stop_leaves_the_live_bundle(world: World) -> None:
    _, live, trial = on_trial(world)
    asked = datetime.now(UTC)
    stop(world)
    with (
        mock.patch("pipelines.promotion.rollback.requested_at", return_value=asked),
        pytest.raises(MlopsError, match=f"has left {trial} since"),
    ):
        back(world, "the canary answers nonsense")
    assert (world.live(), set(quarantined(world.staging, MODEL))) == (live, {trial})


# --- alarms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_it", [False, True])
def test_no_alarm_rolls_back_a_rollback(world: World, names_it: bool) -> None:
    _, good, _ = serve(world, 1, 2, 3)
    back(world)
    state = world.end_state()
    with pytest.raises(MlopsError, match="cannot roll it back") as caught:
        back(world, "mae 61.4 is over 55 since one o'clock", automatic=True, suspect=good if names_it else None)
    assert caught.value.what == (
        f"staging runs a bundle that a rollback of {MODEL} restored, because: {REASON}; an alarm cannot roll it back"
    )
    assert caught.value.fix == "find out which of the two bundles is wrong, then run the workflow `rollback`"
    assert world.end_state() == state


def test_an_alarm_rolls_back_a_promotion(world: World) -> None:
    good, bad = serve(world, 1, 2)
    assert back(world, automatic=True, suspect=bad).event.live == good


def test_an_alarm_about_a_bundle_that_is_no_longer_live_changes_nothing(world: World) -> None:
    good, bad = serve(world, 1, 2)
    state = world.end_state()
    assert back(world, automatic=True, suspect=good).event.live == bad
    assert world.end_state() == state
    assert world.said == [f"{good} is no longer live in staging; there is nothing to do"]


# --- the commit is deployed -------------------------------------------------------------------------------------------


def test_deploying_the_commit_after_the_rollback_records_nothing_more(world: World) -> None:
    serve(world, 1, 2)
    entry = back(world)
    assert deploy(world) == entry
    assert world.records()[-1] == entry


def test_rerunning_a_killed_rollback_after_its_commit_was_deployed_does_nothing(
    world: World,
) -> None:
    """Otherwise the second run would roll the good bundle back."""
    oldest, good, bad = serve(world, 1, 2, 3)

    class DiedError(BaseException):
        pass

    with (
        mock.patch("pipelines.promotion.rollback.verify", side_effect=DiedError),
        pytest.raises(DiedError),
    ):
        back(world)
    deployed = deploy(world)
    assert (deployed.event.action, deployed.event.live, deployed.event.reason) == ("rollback", good, REASON)
    assert back(world) == deployed
    assert world.live() == good != oldest
    assert set(quarantined(world.staging, MODEL)) == {bad}


def test_a_rollback_returns_the_record_if_deploying_its_commit_finished_first(world: World) -> None:
    _, good, bad = serve(world, 1, 2, 3)
    count = len(world.records())
    found: list[Entry] = []

    def restore_and_deploy(*arguments: Any) -> None:
        restore_release(*arguments)
        found.append(deploy(world))
        record(world, bad, good, result="refused", live=good)

    assert [back(world, restore=restore_and_deploy)] == found
    assert len(world.records()) == count + 2


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def roll_back_watched(world: World, fatal: int = 0) -> list[str]:
    """Roll back, and return the names of the moments at which it can be killed: each step, log line and write."""
    moments = Moments(fatal)
    with mock.patch.object(store, "put_new", moments.writes(store.put_new, lambda _: True)):
        back(
            world,
            move=moments.around("moving traffic", world.move),
            restore=moments.around("restoring", restore_release),
            say=moments.pass_by,
        )
    return moments.names


def test_a_rollback_killed_at_any_moment_can_be_run_again(
    world: World,
) -> None:
    oldest, good, bad = serve(world, 1, 2, 3)
    main = git(world.root, "rev-parse", "origin/main")

    def begin() -> None:
        empty(world.staging.registry_bucket, "quarantine/")
        empty(world.staging.registry_bucket, f"ledger/{MODEL}/0000000004")
        git(world.root.parent / "origin.git", "update-ref", "refs/heads/main", main)
        world.set_live(bad)

    moments = roll_back_watched(world)
    expected = world.end_state()
    assert [expected["live"], expected["story"][-1]] == [good, ("rollback", "verified", good, good)]
    assert len(moments) == 13
    for fatal, name in enumerate(moments, 1):
        begin()
        process = start(roll_back_watched, world, fatal)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"it survived {name}"
        assert world.live() in (bad, good)
        back(world)
        assert world.end_state() == expected, f"killed at {name}"
    assert oldest not in expected["quarantined"]


def test_deploying_the_commit_of_a_killed_rollback_finishes_it(
    world: World,
) -> None:
    good, bad = serve(world, 1, 2)
    moments_until_git = 11  # the last moment before the record is written
    process = start(roll_back_watched, world, moments_until_git)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with mock.patch("pipelines.promotion.admission.gather", accepted):
        entry = deploy(world)
    assert (entry.event.action, world.live()) == ("rollback", good)
    assert back(world) == entry and bad in quarantined(world.staging, MODEL)
