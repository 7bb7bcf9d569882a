"""An alarm leads to one response, however often it arrives."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.issues import Issue
from pipelines.monitoring.alarm import Alarm, read_declared_alarm
from pipelines.monitoring.monitor_findings import MonitorFinding
from pipelines.monitoring.monitor_reports import write_report
from pipelines.promotion.alarm_report import AlarmReport
from pipelines.promotion.comments.alarm_issue import render_question
from pipelines.promotion.respond import respond
from pipelines.promotion.response_plan import AlarmFacts, handled_before, reason_to_ignore
from pipelines.promotion.restore import restore_release
from pipelines.promotion.rollback_plan import read_facts_of_traffic
from pipelines.registry import store
from pipelines.registry.response_outcomes import ResponseOutcome, read_outcomes, write_outcome
from tests.aws import EmulatedAccount
from tests.clones import git
from tests.pipelines.github.fake_github import FakeGitHub, fake_github
from tests.pipelines.monitoring.model_reports import full_report
from tests.pipelines.promotion.promotion_project import MODEL, World, WorldTarget, empty
from tests.pipelines.promotion.test_rollback import serve
from tests.processes import Moments, start

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIVE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def alarm(**changes: Any) -> Alarm:
    values = {"kind": "alarm", "response": "retrain", "model": MODEL, "environment": "staging", "reason": "drift"}
    return Alarm(**{**values, **changes})


def outcome(**changes: Any) -> ResponseOutcome:
    values: dict[str, Any] = {
        "id": "earlier",
        "model": MODEL,
        "environment": "staging",
        "response": "retrain",
        "outcome": "done",
        "detail": "started the workflow train",
        "reason": "drift",
        "at": NOW - timedelta(hours=3),
    }
    return ResponseOutcome(**{**values, **changes})


def facts(*recent: ResponseOutcome) -> AlarmFacts:
    return AlarmFacts(frozenset({LIVE}), None, recent, NOW)


def test_an_alarm_about_another_bundle_is_ignored_whatever_it_requests() -> None:
    for response in ("ask", "retrain", "roll-back"):
        assert "no longer live" in reason_to_ignore(alarm(response=response, bundle=OTHER), facts(), 24)
        assert reason_to_ignore(alarm(response=response, bundle=LIVE), facts(), 24) == ""


@pytest.mark.parametrize(
    ("recent", "hours", "ignored"),
    [
        (outcome(), 24, True),
        (outcome(), 2, False),
        (outcome(outcome="ignored"), 24, False),
        (outcome(response="ask"), 24, False),
        (outcome(at=NOW + timedelta(minutes=5)), 24, True),
        (outcome(at=NOW + timedelta(minutes=11)), 24, False),
    ],
    ids=["within", "after", "ignored", "another response", "clock ahead", "of the future"],
)
def test_a_storm_of_alarms_starts_one_training(recent: ResponseOutcome, hours: float, ignored: bool) -> None:
    assert bool(reason_to_ignore(alarm(), facts(recent), hours)) is ignored
    assert reason_to_ignore(alarm(response="roll-back"), facts(recent), hours) == ""


def test_an_issue_shows_no_markup_of_the_alarm_and_links_the_runbook() -> None:
    asked = alarm(response="ask", reason="[x](http://evil) @everyone <b>", checks=("input-drift",), report="r-1")
    run = "https://github.com/acme/mlops/actions/runs/1"
    text = render_question(asked, "input-drift", "team", "abc", run, AlarmReport(missing="it is gone"))
    assert "<b>" not in text and "@everyone" not in text
    assert "\\[x](http\u200b://evil)" in text, "an escaped bracket opens no link, nor does the address alone"
    assert "docs/on-call.md#input-drift" in text
    assert f"mlops monitor show {MODEL} --kind model --env staging --report r-1" in text
    assert "<!-- alarm abc " in text
    assert "The report is not shown here: it is gone." in text
    other = render_question(asked.model_copy(update={"reason": "y"}), "input-drift", "team", "abc", "", AlarmReport())
    assert text.splitlines()[0] != other.splitlines()[0], "a false alarm with the same id does not stand for this one"


def test_an_issue_fits_into_what_github_accepts() -> None:
    asked = alarm(response="ask", reason="é" * 400, checks=("input-drift",), report="r-1")
    many = tuple(
        MonitorFinding(check="input-drift", subject=f"column-{number}", verdict="alarm", figure=0.5, reason="|&<" * 80)
        for number in range(5000)
    )
    found = AlarmReport(full_report().model_copy(update={"findings": many}))
    text = render_question(asked, "input-drift", "team", "abc", "", found)
    assert 50_000 < len(text) <= len(text.encode()) <= 60_000
    assert " more, in the full report" in text


@pytest.mark.parametrize(
    ("before", "handled"),
    [
        (outcome(), True),
        (outcome(outcome="ignored"), False),
        (outcome(response="ask"), False),
        (outcome(bundle=OTHER), False),
        (outcome(reason="nothing to see"), False),
    ],
    ids=["the same", "ignored", "another response", "another bundle", "another reason"],
)
def test_an_alarm_is_handled_only_if_what_it_asks_for_was_done(before: ResponseOutcome, handled: bool) -> None:
    """Everyone with write access can send an alarm with the id of the next real one."""
    assert (handled_before(alarm(id="earlier"), [outcome(reason="x"), before]) is not None) is handled


@dataclass
class Effects:
    """What the responses did.

    Attributes:
        trained: models that a training was started for.
        asked: identities of alarms that people were asked about.
    """

    trained: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def world(first_world: World) -> World:
    first_world.reset(keep_bundles=True)
    return first_world


@pytest.fixture
def effects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Effects]:
    found = Effects()
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")

    def train(_project: Any, models: list[str], _log: Any) -> None:
        found.trained += models

    def ask(_project: Any, _gh: Any, _alarm: Any, alarm_id: str, _run: str, _found: Any) -> list[Issue]:
        found.asked.append(alarm_id)
        return [Issue(7, "https://github.com/acme/mlops/issues/7", is_new=True)]

    with (
        mock.patch("pipelines.promotion.respond.request_training", train),
        mock.patch("pipelines.promotion.respond.ask_people", ask),
    ):
        yield found


def hosted(monkeypatch: pytest.MonkeyPatch) -> FakeGitHub:
    """Return the repository on GitHub that responses use."""
    made = fake_github()
    monkeypatch.setattr(Gh, "find", lambda _root: made)
    monkeypatch.setattr("pipelines.promotion.respond.replace", lambda gh, **_: gh)
    return made


def handle(world: World, one: Alarm) -> None:
    content = json.dumps({"action": one.kind, "client_payload": one.payload()}).encode()
    with world.cluster():
        target = WorldTarget(world, world.apply)
        respond(target, read_declared_alarm(target.project, content), world.said.append)


def outcomes(world: World) -> list[tuple[str, str]]:
    return sorted((one.response, one.outcome) for one in read_outcomes(world.staging, MODEL))


@pytest.mark.slow
def test_a_rollback_is_done_once_and_recorded(world: World, effects: Effects) -> None:
    good, bad = serve(world, 1, 2)
    one = alarm(response="roll-back", bundle=bad, id="a1")
    handle(world, one)
    assert world.live() == good
    assert outcomes(world) == [("roll-back", "done")]
    state = world.end_state()
    handle(world, one)
    assert world.said[-1].startswith("the alarm a1 was handled at")
    handle(world, alarm(response="roll-back", bundle=bad, id="a2"))
    assert world.said[-1] == f"{bad} is no longer live in staging; there is nothing to do"
    assert outcomes(world) == [("roll-back", "done"), ("roll-back", "ignored")]
    assert world.end_state() == state


@pytest.mark.slow
def test_a_rollback_reads_no_more_than_it_needs_before_it_moves_traffic(world: World, effects: Effects) -> None:
    _, bad = serve(world, 1, 2)
    read, described = mock.Mock(wraps=read_facts_of_traffic), mock.Mock(wraps=WorldTarget.descriptor)
    with (
        mock.patch("pipelines.promotion.respond.read_facts_of_traffic", read),
        mock.patch("pipelines.promotion.rollback.read_facts_of_traffic", read),
        mock.patch.object(WorldTarget, "descriptor", lambda target, environment: described(target, environment)),
    ):
        handle(world, alarm(response="roll-back", bundle=bad, id="a1"))
    assert outcomes(world) == [("roll-back", "done")]
    assert read.call_count == 2, "once to judge the alarm, once under the lease"
    assert described.call_count == 1, "Pulumi takes seconds to print outputs"


@pytest.mark.slow
@pytest.mark.parametrize("names_it", [False, True])
def test_alarms_never_walk_back_through_the_history(world: World, effects: Effects, names_it: bool) -> None:
    """Who can land labels, or break what a monitor reads, would otherwise roll back one release after the other."""
    _, good, bad = serve(world, 1, 2, 3)
    handle(world, alarm(response="roll-back", bundle=bad, id="a1"))
    handle(world, alarm(response="roll-back", bundle=good if names_it else None, id="a2", reason="another"))
    assert world.live() == good
    assert effects.asked == ["a2"]
    assert outcomes(world) == [("roll-back", "done"), ("roll-back", "done")]
    assert world.said[-2:] == [
        "not rolled back: a rollback restored the live bundle, so the cause may be elsewhere",
        "opened issue 7",
    ]


@pytest.mark.slow
def test_a_training_is_started_once_in_a_storm(world: World, effects: Effects) -> None:
    serve(world, 1)
    for number in range(3):
        handle(world, alarm(id=f"a{number}"))
    assert effects.trained == [MODEL]
    assert outcomes(world) == [("retrain", "done"), ("retrain", "ignored"), ("retrain", "ignored")]


@pytest.mark.slow
def test_people_are_asked_once_about_an_alarm_that_arrives_twice(world: World, effects: Effects) -> None:
    (live,) = serve(world, 1)
    one = alarm(response="ask", bundle=live, id="a1", checks=("input-drift",))
    handle(world, one)
    handle(world, one)
    assert effects.asked == ["a1"]
    assert world.said[-2] == "opened issue 7"


@pytest.mark.slow
def test_the_issue_has_the_report_that_the_alarm_names_and_what_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (live,) = serve(world, 1)
    github = hosted(monkeypatch)
    drifted = MonitorFinding(check="input-drift", subject="bmi", verdict="alarm", figure=0.2, reason="20% moved")
    names = []
    for day, finding in enumerate((drifted.model_copy(update={"verdict": "ok", "figure": 0.01}), drifted)):
        facts = {"model": MODEL, "environment": "staging", "bundle": live, "findings": (finding,)}
        written = full_report().model_copy(update={**facts, "time": NOW + timedelta(days=day)})
        names.append(write_report(world.staging, written, b"<html>"))
    one = alarm(response="ask", bundle=live, id="a1", checks=("input-drift",), report=names[1])
    handle(world, one)
    (issue,) = github.issues
    assert "| alarm | input-drift | bmi | 20.0% |" in issue["body"]
    assert "- input-drift of bmi: ok (1.0%) → alarm (20.0%)" in issue["body"]
    assert f"mlops monitor report {MODEL} --kind model --env staging --report {names[1]}" in issue["body"]

    handle(world, one.model_copy(update={"id": "a2", "report": names[0]}))
    (comment,) = github.comments[1]
    assert "| ok | input-drift | bmi |" in comment["body"]


@pytest.mark.slow
def test_people_are_asked_even_if_the_report_cannot_be_shown(
    world: World, account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    (live,) = serve(world, 1)
    github = hosted(monkeypatch)
    bucket, name = world.staging.logs_bucket, "20260301T000000Z-other"
    of_another = full_report().model_copy(update={"model": "another", "environment": "staging"}).model_dump_json()
    other = f"monitoring/models/{MODEL}/{name}"
    for key, content in ((f"{other}.json", of_another), (f"{other}2.json", "{}")):
        store.put(bucket, key, content.encode(), content_type="application/json")
    expected = {
        None: "the alarm names none",
        "20260101T000000Z-gone": "the logs bucket does not have it",
        name: "it is about another model or environment",
        f"{name}2": "it cannot be read, or is damaged",
        "denied": "the deploy role may not read it; run bootstrap again",
    }
    for number, (report, reason) in enumerate(expected.items()):
        if report == "denied":
            account.denied.add(bucket)
        checks = (f"check-{number}",)
        handle(world, alarm(response="ask", bundle=live, id=f"a{number}", checks=checks, report=report))
        assert f"The report is not shown here: {reason}" in github.issues[-1]["body"]
    account.denied.clear()
    assert len(github.issues) == len(expected)


@pytest.mark.slow
def test_a_false_alarm_with_the_id_of_the_next_one_does_not_stop_it(world: World, effects: Effects) -> None:
    good, bad = serve(world, 1, 2)
    handle(world, alarm(response="ask", bundle=bad, id="a1", reason="all is well"))
    handle(world, alarm(response="roll-back", bundle=OTHER, id="a1", reason="breach"))
    assert world.live() == bad
    handle(world, alarm(response="roll-back", bundle=bad, id="a1", reason="breach"))
    assert world.live() == good


@pytest.mark.slow
def test_an_alarm_without_an_identity_is_that_of_its_workflow_run(
    world: World, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(world, 1)
    monkeypatch.setenv("GITHUB_RUN_ID", "71")
    handle(world, Alarm(kind="drift", model=MODEL, environment="staging", reason="x"))
    (found,) = read_outcomes(world.staging, MODEL)
    assert found.id == "run-71"


@pytest.mark.slow
def test_an_alarm_whose_response_failed_is_handled_by_the_next_attempt(world: World, effects: Effects) -> None:
    _, bad = serve(world, 1, 2)
    one = alarm(response="roll-back", bundle=bad, id="a1")
    with (
        mock.patch("pipelines.promotion.rollback.restore_release", side_effect=RuntimeError("GitHub is down")),
        pytest.raises(RuntimeError),
    ):
        handle(world, one)
    assert outcomes(world) == []
    handle(world, one)
    assert outcomes(world) == [("roll-back", "done")]


def respond_watched(world: World, one: Alarm, fatal: int = 0) -> list[str]:
    """Handle an alarm, and return the names of the moments at which that can be killed: each step and write."""
    moments = Moments(fatal)
    done = world.state / "asked"

    def note(what: str) -> None:
        done.write_text((done.read_text() if done.exists() else "") + f"{what}\n")

    def train(*_: Any) -> None:
        note("train")

    def ask(*_: Any) -> list[Issue]:
        note("ask")
        return [Issue(7, "https://github.com/acme/mlops/issues/7", is_new=True)]

    with (
        mock.patch("pipelines.promotion.respond.request_training", moments.around("training", train)),
        mock.patch("pipelines.promotion.respond.ask_people", moments.around("asking", ask)),
        mock.patch.object(store, "put_new", moments.writes(store.put_new, lambda _: True)),
        mock.patch.object(World, "move", moments.around("moving traffic", World.move)),
        mock.patch("pipelines.promotion.rollback.restore_release", moments.around("restoring", restore_release)),
    ):
        handle(world, one)
    return moments.names


@pytest.mark.slow
@pytest.mark.parametrize("response", ["roll-back", "retrain", "ask"])
def test_a_response_that_is_killed_around_its_outcome_is_finished_by_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch, response: str
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    _, _, bad = serve(world, 1, 2, 3)
    main = git(world.root, "rev-parse", "origin/main")
    one = alarm(response=response, bundle=bad, id="a1")

    def begin() -> None:
        empty(world.staging.registry_bucket, "quarantine/")
        empty(world.staging.registry_bucket, f"reports/{MODEL}/alarms/")
        empty(world.staging.registry_bucket, f"ledger/{MODEL}/0000000004")
        git(world.root.parent / "origin.git", "update-ref", "refs/heads/main", main)
        world.set_live(bad)
        (world.state / "asked").unlink(missing_ok=True)

    moments = respond_watched(world, one)
    expected = world.end_state()
    assert len(moments) == (10 if response == "roll-back" else 4)
    for fatal, name in list(enumerate(moments, 1))[-3:]:  # the earlier ones are those of a rollback
        begin()
        process = start(respond_watched, world, one, fatal)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"it survived {name}"
        assert world.live() in (bad, expected["live"])
        for _ in range(2):
            respond_watched(world, one)
            assert world.end_state() == expected, f"killed at {name}"
            # Once the rollback is recorded, the bundle is no longer live, and the alarm is about nothing.
            is_over = response == "roll-back" and (name.startswith("after the write of ledger") or "reports/" in name)
            assert {(response, "done"), *([(response, "ignored")] if is_over else [])} >= set(outcomes(world)), name
        asked = (world.state / "asked").read_text().split() if (world.state / "asked").exists() else []
        assert len(asked) <= 2, "what GitHub was asked before the kill, and once more"


@pytest.mark.slow
def test_outcomes_are_read_newest_first_and_a_foreign_object_is_refused(world: World) -> None:
    for number in range(3):
        write_outcome(world.staging, outcome(id=f"a{number}", at=NOW + timedelta(minutes=number), reason="x" * 400))
    assert [one.id for one in read_outcomes(world.staging, MODEL)] == ["a2", "a1", "a0"]
    assert [one.id for one in read_outcomes(world.staging, MODEL, since=NOW + timedelta(minutes=2))] == ["a2"]
    prefix = f"reports/{MODEL}/alarms"
    write_outcome(world.staging, outcome(id="false", at=datetime(2099, 1, 1, tzinfo=UTC)))
    assert [one.id for one in read_outcomes(world.staging, MODEL, most=1)] == ["a2"], "one of the future hides none"
    store.put_new(world.staging.registry_bucket, f"{prefix}/20260302T000000Z-x.json", b"{}")
    with pytest.raises(MlopsError, match="is not the outcome of an alarm"):
        read_outcomes(world.staging, MODEL)


@pytest.mark.slow
def test_an_alarm_does_not_undo_a_rollback_while_a_release_is_on_trial(world: World, effects: Effects) -> None:
    _, good, bad = serve(world, 1, 2, 3)
    handle(world, alarm(response="roll-back", bundle=bad, id="a1"))
    trial = world.register(4)
    world.release(trial, good)
    (world.state / "applied").write_text(trial)
    handle(world, alarm(response="roll-back", bundle=good, id="a2", reason="another"))
    assert world.live() == good
    assert effects.asked == ["a2"]
