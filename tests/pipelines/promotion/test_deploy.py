from __future__ import annotations

import json
import signal
from typing import Any
from unittest import mock

import boto3
import pytest

from pipelines.cluster.rollouts import InconclusiveCanaryError, OvertakenError
from pipelines.declarations.bundle import MANIFEST
from pipelines.declarations.digests import digest_of_value
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.admission import GateRefusedError
from pipelines.promotion.attempt import StaleReleaseError
from pipelines.promotion.deploy import deploy
from pipelines.promotion.facts.gather import ReleaseChange
from pipelines.promotion.report import read_report
from pipelines.registry import bundles, evidence, store
from pipelines.registry.bundle_quarantine import Quarantined, quarantine
from pipelines.registry.ledger import Entry, Event, Ledger
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, World, WorldTarget, accepted, empty
from tests.processes import Moments, start

pytestmark = pytest.mark.slow


def judge_and_deploy(world: World, change: ReleaseChange, **steps: Any) -> Entry:
    """Judge a release with every gate, and take it live."""
    return world.take_live(world.admit(change, **{k: v for k, v in steps.items() if k == "say"}), **steps)


def deploy_accepted(world: World, change: ReleaseChange, **steps: Any) -> Entry:
    """Take a release live with facts that every gate accepts, which is faster than gathering them."""
    with mock.patch("pipelines.promotion.admission.gather", accepted):
        return judge_and_deploy(world, change, **steps)


def live_and_next(world: World, seed: int) -> tuple[str, str]:
    """Return a bundle that is live in staging, and another that is registered in dev."""
    live = world.register(seed)
    deploy_accepted(world, world.release(live, None))
    return live, world.register(seed + 1)


def test_a_bundle_that_passes_goes_live_and_its_record_is_complete(world: World) -> None:
    digest = world.ready(1)
    change = world.release(digest, None)
    attribution = world.attribution(pull_request=12, approvers=("bob", "eve"))
    entry = world.take_live(world.admit(change, attribution=attribution))
    assert (world.live(), world.story()) == (digest, [("promotion", "verified", digest, digest)])
    event = entry.event
    assert (event.before, event.pull_request, event.approvers, event.actor) == (None, 12, ("bob", "eve"), "ann")
    assert event.commit == world.repository.head() != event.source_commit
    assert (event.dataset, event.run, event.source_commit) == ("diabetes-patients@1", "run-1", world.start)
    gates = world.project.model(MODEL).gates.model_dump(mode="json")
    assert event.policy == digest_of_value(gates)
    assert event.attempt == f"{event.commit}/{attribution.attempt}/verified"
    assert set(event.verdicts.values()) == {"pass"} and len(event.verdicts) == 17
    assert event.evidence == evidence.digests_of_statements(world.dev, MODEL, digest)
    prefix = f"lineage/deploy-{MODEL}/"
    listed = [each.key for each in store.listing(world.staging.logs_bucket, prefix)]
    assert sorted(key.rpartition("-")[2] for key in listed)[:2] == ["COMPLETE.json", "START.json"]
    (complete,) = [key for key in listed if key.endswith("COMPLETE.json")]
    found = json.loads(store.get(world.staging.logs_bucket, complete, limit=1 << 20).content)
    assert [found[side][0]["facets"]["version"]["datasetVersion"] for side in ("inputs", "outputs")] == [digest] * 2
    assert event.report is not None
    report = json.loads(read_report(world.staging, MODEL, event.report))
    assert report["facts"]["release"]["bundle"] == digest
    assert [v["outcome"] for v in report["verdicts"]] == ["pass"] * 17
    assert bundles.fetch(world.staging, MODEL, digest).digest == digest


def test_a_deployment_stops_if_it_may_not_read_what_its_environment_promotes_from(world: World) -> None:
    """Only bootstrap grants that, also after a change of `promotes_from`. No release is refused for it."""
    world.release(world.ready(1), None)
    denied = store.AccessDeniedError("s3:GetObject was denied")
    with (
        mock.patch("pipelines.promotion.predecessor_access.store.get", side_effect=denied),
        pytest.raises(MlopsError, match="staging promotes from dev, but may not read its bundles") as caught,
    ):
        deploy(WorldTarget(world, world.apply), "staging", world.said.append)
    assert "run bootstrap again" in caught.value.fix
    assert (world.applied(), world.story()) == (None, [])


def test_nothing_is_recorded_before_the_endpoint_is_verified(world: World) -> None:
    digest = world.register(1)
    seen: list[int] = []

    def say(text: str) -> None:
        seen.append(Ledger(world.staging, MODEL).newest())
        world.said.append(text)

    deploy_accepted(world, world.release(digest, None), say=say)
    assert [text.split(":")[0] for text in world.said] == [
        "17 of 17 gates pass",
        "the bundle is in the registry of staging",
        "applied",
        "rolled out",
        "verified",
    ]
    assert seen == [0] * 5 and Ledger(world.staging, MODEL).newest() == 1


def test_a_second_run_applies_and_verifies_again_but_records_nothing(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)
    first = deploy_accepted(world, change)
    world.set_live(None)
    world.said.clear()
    assert deploy_accepted(world, change) == first
    assert (world.live(), len(world.records())) == (digest, 1)
    assert world.said == [f"{MODEL} is already recorded as live in staging", "applied", "rolled out"]
    admitted = world.admit(change)
    assert (admitted.release, admitted.recorded, admitted.live) == (change.release, first, digest)


def test_a_live_release_stays_recorded_after_another_was_refused(world: World) -> None:
    """Its `replaces` is out of date, but the environment matches git."""
    digest, other = world.ready(1), world.register(2)
    change = world.release(digest, None)
    went_live = judge_and_deploy(world, change)
    with pytest.raises(GateRefusedError):
        judge_and_deploy(world, world.release(other, digest))
    world.release(digest, None)
    assert judge_and_deploy(world, change) == went_live
    assert [result for _, result, _, _ in world.story()] == ["verified", "refused"]


def test_a_refused_release_is_recorded_with_its_verdicts_and_changes_nothing(world: World) -> None:
    good, bad = world.ready(1), world.register(2)
    judge_and_deploy(world, world.release(good, None))
    with pytest.raises(GateRefusedError, match="order: it was never verified in dev") as caught:
        judge_and_deploy(world, world.release(bad, good))
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
    assert event.evidence, "the evidence is read from the source environment"
    assert event.report is not None
    verdicts = {v["gate"]: v for v in json.loads(read_report(world.staging, MODEL, event.report))["verdicts"]}
    assert verdicts["order"]["outcome"] == "fail"
    assert bundles.list_digests(world.staging, MODEL) == [good]


def test_refusing_an_unsigned_bundle_records_verdicts_but_no_evidence(world: World) -> None:
    manifest, files = world.bundle(60)
    bundles.push(world.dev, manifest, files)
    with pytest.raises(GateRefusedError, match="signature: there is no signed provenance"):
        judge_and_deploy(world, world.release(manifest.digest, None))
    event = world.records()[-1].event
    assert (event.policy, event.dataset, event.source_commit, event.evidence) == (None, "", None, {})
    assert (event.verdicts["signature"], event.verdicts["thresholds"]) == ("fail", "inconclusive")


def test_refusing_a_tampered_bundle_records_its_evidence(world: World) -> None:
    digest = world.ready(61)
    key = bundles.prefix_of(MODEL, digest) + "card.md"
    boto3.client("s3").put_object(Bucket=world.dev.registry_bucket, Key=key, Body=b"# B card\n")
    with pytest.raises(GateRefusedError, match=r"digest: card\.md was changed"):
        judge_and_deploy(world, world.release(digest, None))
    event = world.records()[-1].event
    assert (event.dataset, event.source_commit) == ("diabetes-patients@1", world.start)


def test_each_attempt_is_recorded_once(world: World) -> None:
    change = world.release(world.register(1), None)
    first, second = world.attribution(), world.attribution()
    for attribution in (first, first, second):
        with pytest.raises(GateRefusedError):
            world.admit(change, attribution=attribution)
    assert [entry.event.attempt for entry in world.records()] == [
        f"{each.commit}/{each.attempt}/refused" for each in (first, second)
    ]


def test_an_attempt_of_a_workflow_is_that_of_its_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "2")
    assert world.attribution().attempt == "77.2"


def test_a_canary_without_a_verdict_stays_on_trial_and_the_next_deployment_takes_it_live(world: World) -> None:
    good, mine = live_and_next(world, 1)
    change, before = world.release(mine, good), len(world.records())

    def undecided(_: str) -> None:
        raise InconclusiveCanaryError("its canary check neither passed nor failed")

    with pytest.raises(InconclusiveCanaryError):
        deploy_accepted(world, change, follow=undecided, take_back=lambda *_: pytest.fail("moved"))
    assert (world.applied(), world.live(), len(world.records())) == (mine, good, before)
    assert deploy_accepted(world, change).event.result == "verified"
    assert world.live() == mine


@pytest.mark.parametrize("step", ["follow", "prove"])
def test_a_deployment_that_was_overtaken_records_and_moves_nothing(world: World, step: str) -> None:
    good, mine = live_and_next(world, 1)
    change = world.release(mine, good)

    def follow(model: str) -> None:
        world.follow(model)
        world.hold.lost_to = "`rollback` in run 12 of ada"
        if step == "follow":
            raise MlopsError("the rollout was aborted")

    with pytest.raises(OvertakenError, match="`rollback` in run 12 of ada took over the traffic"):
        deploy_accepted(world, change, follow=follow, take_back=lambda *_: pytest.fail("moved"))
    assert world.story() == [("promotion", "verified", good, good)]


def test_a_deployment_puts_back_what_a_rollback_restored_while_it_applied(world: World) -> None:
    """Its program was read before the rollback, and wrote the bad bundle after it."""
    bad, good = bad_and_good(world, 1)
    admitted = world.admit(ReleaseChange(world.project.release(MODEL, "staging"), (RELEASE,)))

    def apply() -> None:
        world.hold.lost_to = "`rollback` in run 12 of ada"
        block(world, bad)
        event = Event.of(attempt="back", action="rollback", result="verified", before=bad, to=good, live=good)
        Ledger(world.staging, MODEL).append(lambda _: event)
        (world.state / "applied").write_text(bad)

    with pytest.raises(OvertakenError):
        world.take_live(admitted, apply=apply)
    assert world.live() == good
    assert world.story()[-1] == ("rollback", "verified", good, good)


def test_a_stale_release_is_refused_before_it_is_judged(world: World) -> None:
    first, second = live_and_next(world, 1)
    stale = world.release(second, world.register(3))
    with pytest.raises(StaleReleaseError) as caught:
        deploy_accepted(world, stale)
    assert caught.value.what == (
        f"the release of {MODEL} to staging is stale: it replaces {stale.release.replaces}, but {first} is live"
    )
    assert caught.value.fix == "propose the release again, against the live bundle"
    assert len(world.records()) == 1 and world.live() == first


def test_a_release_that_becomes_stale_during_its_rollout_is_not_recorded_as_live(world: World) -> None:
    theirs, mine = world.register(1), world.register(2)
    change = world.release(mine, None)

    def overtaken(model: str) -> None:
        world.follow(model)
        event = Event.of(attempt="x", action="promotion", result="verified", before=None, to=theirs, live=theirs)
        Ledger(world.staging, MODEL).append(lambda _: event)

    with pytest.raises(StaleReleaseError, match=f"it replaces no bundle, but {theirs} is live"):
        deploy_accepted(world, change, follow=overtaken)
    assert world.story() == [("promotion", "verified", theirs, theirs)]


def test_a_failed_release_is_recorded_even_if_another_went_live_during_it(world: World) -> None:
    theirs, mine = world.register(1), world.register(2)
    change = world.release(mine, None)

    def overtaken(_: str) -> None:
        event = Event.of(attempt="x", action="promotion", result="verified", before=None, to=theirs, live=theirs)
        Ledger(world.staging, MODEL).append(lambda _: event)
        raise MlopsError("the rollout was aborted")

    with pytest.raises(MlopsError, match="aborted"):
        deploy_accepted(world, change, follow=overtaken)
    assert world.story() == [("promotion", "verified", theirs, theirs), ("promotion", "failed", mine, theirs)]


def test_two_deployments_of_the_same_bundle_leave_one_record(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)

    def also(model: str) -> None:
        world.follow(model)
        world.take_live(world.admit(change, attribution=world.attribution(commit="f" * 40)))
        refused = Event.of(
            attempt="x", action="promotion", result="refused", before=digest, to=world.register(2), live=digest
        )
        Ledger(world.staging, MODEL).append(lambda _: refused)

    entry = deploy_accepted(world, change, follow=also)
    assert entry == world.records()[0]
    assert [result for _, result, _, _ in world.story()] == ["verified", "refused"]


@pytest.mark.parametrize("when", ["apply", "follow"])
def test_a_failed_release_is_recorded_and_traffic_returns(world: World, when: str) -> None:
    good, bad = live_and_next(world, 1)

    def fail(*_: str) -> None:
        world.set_live(bad)
        raise MlopsError("the rollout was aborted: canary answers 500")

    with pytest.raises(MlopsError, match="canary answers 500"):
        deploy_accepted(world, world.release(bad, good), **{when: fail})
    assert world.live() == good, "traffic goes to the bundle that the ledger records as live"
    event = world.records()[-1].event
    assert (event.result, event.to, event.live) == ("failed", bad, good)
    assert event.reason == "the rollout was aborted: canary answers 500"
    assert world.said[-1] == f"traffic returned to {good}"
    assert set(event.verdicts.values()) == {"pass"}


def test_traffic_returns_when_the_endpoint_serves_another_bundle(world: World) -> None:
    good, bad = live_and_next(world, 1)
    change = world.release(bad, good)

    def serve_another(_: str) -> None:
        world.set_live(good)

    with pytest.raises(MlopsError, match=f"serves: expected {bad}, found {good}"):
        deploy_accepted(world, change, follow=serve_another)
    assert world.story()[-1] == ("promotion", "failed", bad, good)
    deploy_accepted(world, change)
    assert world.story()[-1] == ("promotion", "verified", bad, bad), "a retry may succeed"


def test_a_record_says_if_traffic_could_not_be_returned(world: World) -> None:
    good, bad = live_and_next(world, 1)

    def fail(*_: str) -> None:
        raise MlopsError("the cluster does not answer")

    with pytest.raises(MlopsError):
        deploy_accepted(world, world.release(bad, good), follow=fail, take_back=fail)
    assert "traffic could not be returned: the cluster does not answer" in world.records()[-1].event.reason


def test_a_bundle_that_cannot_be_copied_fails_before_anything_is_applied(world: World) -> None:
    good, bad = live_and_next(world, 1)
    with (
        mock.patch("pipelines.promotion.deploy.replicate", side_effect=MlopsError("access denied")),
        pytest.raises(MlopsError, match="access denied"),
    ):
        deploy_accepted(
            world,
            world.release(bad, good),
            apply=lambda: pytest.fail("applied"),
            take_back=lambda *_: pytest.fail("moved"),
        )
    assert world.story()[-1] == ("promotion", "failed", bad, good)


def test_a_failed_first_release_moves_no_traffic(world: World) -> None:
    digest = world.register(1)

    def fail(*_: str) -> None:
        raise MlopsError("the rollout was aborted")

    with pytest.raises(MlopsError, match="aborted"):
        deploy_accepted(world, world.release(digest, None), follow=fail, take_back=lambda *_: pytest.fail("moved"))
    assert world.story() == [("promotion", "failed", digest, None)]
    assert world.records()[-1].event.reason == "the rollout was aborted"


def test_admission_applies_nothing_and_taking_live_judges_nothing(world: World) -> None:
    digest = world.register(1)
    change = world.release(digest, None)
    with mock.patch("pipelines.promotion.admission.gather", accepted):
        admitted = world.admit(change)
    assert (world.applied(), world.story(), admitted.recorded) == (None, [], None)
    with mock.patch("pipelines.promotion.admission.gather", side_effect=AssertionError):
        entry = world.take_live(admitted)
    assert entry.event.live == world.live() == digest


def test_a_release_needs_a_bundle_and_environments_that_are_up(world: World) -> None:
    change = world.release(world.register(1), None)
    for missing in ("staging", "dev"):
        up = {name: d for name, d in world.descriptors.items() if name != missing}
        with pytest.raises(MlopsError) as caught:
            world.admit(change, descriptors=up)
        assert (caught.value.what, caught.value.fix) == (f"{missing} is not up", f"mlops up --env {missing}")
    with pytest.raises(MlopsError) as caught:
        judge_and_deploy(world, world.release(None, None))
    assert caught.value.what == f"the release of {MODEL} to staging names no bundle"


def test_a_release_must_replace_the_live_bundle(world: World) -> None:
    one, other = world.register(1), world.register(2)
    with pytest.raises(StaleReleaseError) as caught:
        deploy_accepted(world, world.release(one, other), apply=lambda: pytest.fail("applied"))
    assert caught.value.what == (
        f"the release of {MODEL} to staging is stale: it replaces {other}, but no bundle is live"
    )
    deploy_accepted(world, world.release(one, None))
    with pytest.raises(StaleReleaseError) as caught:
        deploy_accepted(world, world.release(other, None))
    assert caught.value.what == (
        f"the release of {MODEL} to staging is stale: it replaces no bundle, but {one} is live"
    )


def test_deploying_an_environment_judges_its_releases_and_applies_once(world: World) -> None:
    digest = world.ready(1)
    world.release(digest, None)
    applied: list[None] = []

    def apply() -> None:
        applied.append(None)
        world.apply()

    with world.cluster():
        deploy(WorldTarget(world, apply), "staging", world.said.append)
    assert (len(applied), world.live()) == (1, digest)
    assert world.said[-1] == f"{MODEL} in staging serves {digest} at {world.url} (ledger record 1)"


def test_deploying_an_environment_without_releases_applies_its_program(world: World) -> None:
    deploy(WorldTarget(world, world.apply), "staging", world.said.append)
    assert world.said == ["applied"]


# --- the commit of a rollback -----------------------------------------------------------------------------------------


def bad_and_good(world: World, seed: int) -> tuple[str, str]:
    """Make a bad bundle replace a good one in staging; return (bad, good)."""
    good, bad = live_and_next(world, seed)
    deploy_accepted(world, world.release(bad, good))
    return bad, good


def block(world: World, digest: str, reason: str = "it answers nonsense") -> None:
    at = world.records()[-1].event.at
    quarantine(world.staging, MODEL, Quarantined(bundle=digest, reason=reason, at=at))


def test_the_commit_of_a_rollback_goes_live_without_being_judged(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    block(world, bad)
    change = world.release(good, bad)
    with mock.patch("pipelines.promotion.admission.gather", side_effect=AssertionError("judged")):
        entry = judge_and_deploy(world, change)
    assert world.live() == good
    assert world.story()[-1] == ("rollback", "verified", good, good)
    assert entry.event.reason == "it answers nonsense"
    assert f"returning from a quarantined bundle to {good}, which was verified here before" in world.said


def test_going_back_from_a_good_bundle_is_judged_like_any_promotion(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    with pytest.raises(GateRefusedError, match="order: it was never verified in dev"):
        judge_and_deploy(world, world.release(good, bad))


def test_going_back_to_a_quarantined_bundle_is_refused(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    block(world, bad)
    block(world, good, "worse still")
    with pytest.raises(GateRefusedError, match="quarantine: it was rolled back: worse still"):
        judge_and_deploy(world, world.release(good, bad))


def test_going_from_a_quarantined_bundle_to_an_unverified_one_is_judged(world: World) -> None:
    bad, _ = bad_and_good(world, 1)
    block(world, bad)
    with pytest.raises(GateRefusedError, match="order"):
        judge_and_deploy(world, world.release(world.register(3), bad))


def test_deploying_the_bad_release_again_does_not_undo_an_unfinished_rollback(world: World) -> None:
    bad, good = bad_and_good(world, 1)
    change = ReleaseChange(world.project.release(MODEL, "staging"), (RELEASE,))
    block(world, bad)
    world.set_live(good)
    with pytest.raises(GateRefusedError) as caught:
        deploy_accepted(world, change)
    assert caught.value.what == f"{MODEL} in staging is being rolled back: it answers nonsense"
    assert caught.value.fix == "run the rollback again to finish it"
    assert world.live() == good


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def promote_watched(world: World, change: ReleaseChange, fatal: int = 0) -> list[str]:
    """Deploy, and return the names of the moments at which it can be killed: each step, log line and write."""
    moments = Moments(fatal)
    kinds = ("reports/", "ledger/", f"/{MANIFEST}")
    write = moments.writes(store.put_new, lambda key: any(kind in key for kind in kinds))

    def applying() -> None:
        moments.pass_by("before apply")
        world.apply()

    def following(model: str) -> None:
        moments.pass_by("before follow")
        world.follow(model)

    with mock.patch.object(store, "put_new", write):
        deploy_accepted(world, change, apply=applying, follow=following, say=moments.pass_by)
    return moments.names


def test_a_deployment_killed_at_any_moment_can_be_run_again(
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
        assert process.exitcode == -signal.SIGKILL, f"it survived {name}"
        so_far = world.story()
        assert so_far in (expected["story"][:1], expected["story"]), f"killed at {name}"
        assert len(so_far) == 1 or world.live() == better, "a bundle is recorded only once it is live"
        deploy_accepted(world, change)
        assert world.end_state() == expected, f"killed at {name}"


def test_an_environment_that_was_never_brought_up_is_created_only_on_request(world: World) -> None:
    target = NewEnvironment(world)
    deploy(target, "staging", world.said.append)
    assert target.applied == []
    assert world.said == [
        "staging was never brought up, so nothing is deployed. To create it, run mlops up --env staging, or the "
        "workflow deploy with `create`"
    ]
    with mock.patch("pipelines.promotion.deploy.record_pins"):
        deploy(target, "staging", world.said.append, create=True)
    assert target.applied == ["foundation", "all"]


def test_a_new_environment_gets_no_release_that_a_gate_refuses(world: World) -> None:
    world.release(world.register(1), None)
    target = NewEnvironment(world)
    with world.cluster(), pytest.raises(GateRefusedError, match="order: it was never verified in dev"):
        deploy(target, "staging", world.said.append, create=True)
    assert target.applied == ["foundation"]


def test_a_new_environment_takes_a_release_live_after_it_was_judged(world: World) -> None:
    digest = world.ready(1)
    world.release(digest, None)
    target = NewEnvironment(world)
    with world.cluster(), mock.patch("pipelines.promotion.deploy.record_pins"):
        deploy(target, "staging", world.said.append, create=True)
    assert (target.applied, world.live()) == (["foundation", "all"], digest)


class NewEnvironment(WorldTarget):
    """Target whose environment was never brought up. `applied` lists what of the program was applied."""

    def __init__(self, world: World) -> None:
        super().__init__(world, world.apply)
        self.applied: list[str] = []

    def outputs(self, environment: str) -> dict[str, Any]:
        return super().outputs(environment) if self.applied else {}

    def apply(self, operation: str, environment: str, *, foundation_only: bool = False) -> None:
        self.applied.append("foundation" if foundation_only else "all")
        if not foundation_only:
            super().apply(operation, environment)
