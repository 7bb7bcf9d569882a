"""`mlops status`: what is visible is shown, and the rest says why it is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import ModelResponses
from pipelines.declarations.project import Project
from pipelines.monitoring.monitor_reports import write_report
from pipelines.monitoring.response_policy import decide
from pipelines.monitoring.response_records import write_decision
from pipelines.promotion import status as module
from pipelines.promotion.status import (
    DatasetStatus,
    EnvironmentStatus,
    ModelStatus,
    MonitorRun,
    read_model,
    read_status,
)
from pipelines.promotion.status_lines import status_json, status_lines
from pipelines.registry.response_outcomes import write_outcome
from tests.infra.recording import edit
from tests.pipelines.monitoring.test_response_policy import AT_ONCE, report
from tests.pipelines.promotion.promotion_project import MODEL, World, WorldTarget
from tests.pipelines.promotion.test_respond import outcome
from tests.pipelines.promotion.test_rollback import serve
from tests.sample_project import copy_as_forked

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LIVE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def model(**changes: Any) -> ModelStatus:
    values: dict[str, Any] = {"declared": LIVE, "live": LIVE, "served": LIVE, "rollout": "Healthy"}
    return ModelStatus("m1", **{**values, **changes})


def lines(*models: ModelStatus, **changes: Any) -> list[str]:
    return status_lines(EnvironmentStatus("prod", **{"is_up": True, "models": models, **changes}))


def test_a_healthy_model_takes_three_lines() -> None:
    run = MonitorRun(NOW, "ok", "r-1")
    assert lines(model(monitor=run)) == [
        "prod: up",
        "  m1",
        "    live       sha256:aaaaaaaaaaaa",
        "    rollout    Healthy",
        "    monitor    ok, 2026-03-02 00:00 UTC",
    ]


def test_a_terminal_acts_on_nothing_that_is_shown() -> None:
    done, state = outcome(detail="\x1b[2J", reason="\x9b2J"), model(rollout="\x1b[31mHealthy")
    shown = lines(state, model(responses=[done]))
    shown.append(
        json.dumps(status_json([EnvironmentStatus("prod", True, (model(responses=[done]),))]), ensure_ascii=False)
    )
    assert all(each.isprintable() for each in shown)
    assert any("Healthy" in each for each in shown)


def test_differences_alarms_and_responses_are_shown() -> None:
    found = decide([report(0, "errors")], ModelResponses(hysteresis=AT_ONCE), NOW, [])
    assert found is not None
    run = MonitorRun(NOW, "alarm", "r-1", ("errors",))
    shown = lines(
        model(declared=OTHER, served=OTHER, rollout="Paused", monitor=run, open_alarms=[found], responses=[outcome()])
    )
    assert (
        "    declared   sha256:bbbbbbbbbbbb in this checkout: run git pull; if it still differs, run mlops audit"
        in shown
    )
    assert "    rollout    sha256:bbbbbbbbbbbb, Paused" in shown
    assert "    monitor    alarm: errors, 2026-03-02 00:00 UTC" in shown
    assert "               what it found: mlops monitor show m1 --kind model --env prod" in shown
    assert f"    alarm      2026-03-02 00:00 UTC roll-back: errors: errors is off (open, {found.id})" in shown
    assert "    response   2026-02-28 21:00 UTC retrain, done: started the workflow train" in shown


def test_what_is_not_visible_says_why() -> None:
    assert lines(is_up=False, unseen={"environment": "no credentials"}) == [
        "prod: not visible",
        "  environment not visible: no credentials",
    ]
    assert lines(is_up=False) == ["prod: not up"]
    assert "    rollout    not visible: the cluster does not respond" in lines(
        model(unseen={"rollout": "the cluster does not respond"})
    )


def test_a_monitor_that_no_longer_runs_is_overdue_whatever_it_found_last() -> None:
    run = MonitorRun(NOW, "ok", "r-1", is_overdue=True)
    assert lines(model(monitor=run))[-2:] == [
        "    monitor    ok, 2026-03-02 00:00 UTC, overdue",
        "               why it does not run: mlops logs observe-m1 --env prod",
    ]


def test_json_has_everything() -> None:
    (value,) = status_json([EnvironmentStatus("prod", True, (model(monitor=MonitorRun(NOW, "ok", "r-1")),))])
    assert json.loads(json.dumps(value))["models"][0]["monitor"] == {
        "at": "2026-03-02T00:00:00+00:00",
        "verdict": "ok",
        "report": "r-1",
        "alarms": [],
        "is_overdue": False,
    }


@pytest.fixture
def world(first_world: World) -> World:
    first_world.reset(keep_bundles=True)
    return first_world


@pytest.mark.slow
def test_an_alarm_is_open_until_it_is_answered(world: World) -> None:
    (live,) = serve(world, 1)
    now = datetime.now(UTC)
    monitored = report(0, "errors", bundle=live).model_copy(
        update={"model": MODEL, "environment": "staging", "time": now, "window_end": now}
    )
    name = write_report(world.staging, monitored, b"<html>")
    decision = decide([monitored], ModelResponses(hysteresis=AT_ONCE), now, [], report=name)
    assert decision is not None
    write_decision(world.staging, decision)
    with mock.patch.object(module, "_rollout", return_value=(live, "Healthy")):
        found = read_model(world.staging, MODEL, live, "", now)
        assert (found.live, found.served, found.unseen) == (live, live, {})
        assert [one.id for one in found.open_alarms] == [decision.id]
        assert found.monitor == MonitorRun(monitored.time, "alarm", name, ("errors",))
        write_outcome(world.staging, outcome(id=decision.id, at=now))
        found = read_model(world.staging, MODEL, live, "", now)
        assert found.open_alarms == []
        assert [one.id for one in found.responses] == [decision.id]
        for hours, is_overdue in ((25, False), (27, True)):
            at = now + timedelta(hours=hours)
            seen = read_model(world.staging, MODEL, live, "", at, silence=timedelta(hours=26)).monitor
            assert seen is not None and seen.is_overdue is is_overdue
        later = read_model(world.staging, MODEL, live, "", now + timedelta(days=15))
        assert later.responses == []


@pytest.mark.parametrize(
    ("stable", "shown"),
    [
        ("old", "Progressing, 10 % to the release on trial: waiting; newest check: 30 more requests to the canary"),
        ("new", "Progressing: waiting"),
    ],
)
def test_a_release_on_trial_says_what_its_check_waits_for(
    first_world: World, stable: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = {
        "metadata": {"name": MODEL, "generation": 2},
        "spec": {"template": {"spec": {"containers": [{"args": ["--bundle", OTHER]}]}}},
        "status": {
            "observedGeneration": "2",
            "phase": "Progressing",
            "message": "waiting",
            "currentPodHash": "new",
            "stableRS": stable,
            "canary": {"weights": {"canary": {"weight": 10}}},
        },
    }
    client = mock.MagicMock()
    client.__enter__.return_value.list.return_value = [SimpleNamespace(to_dict=lambda: rollout)]
    asked: list[tuple[str, ...]] = []

    def reason_of_check(*what: str) -> str:
        asked.append(what)
        return "30 more requests to the canary"

    monkeypatch.setattr(module, "connect", lambda _: client)
    monkeypatch.setattr(module, "reason_of_check", reason_of_check)
    assert module._rollout(first_world.staging, MODEL) == (OTHER, shown)
    assert asked in ([], [(first_world.staging.namespace, MODEL, OTHER, "inconclusive")])


@pytest.mark.slow
def test_without_a_cluster_the_rest_is_visible(world: World) -> None:
    (live,) = serve(world, 1)
    found = read_model(world.staging, MODEL, live, "the cluster does not respond", datetime.now(UTC))
    assert found.live == live
    assert found.unseen == {"rollout": "the cluster does not respond"}


@pytest.mark.slow
def test_without_rights_to_the_logs_bucket_the_rest_is_visible(world: World) -> None:
    (live,) = serve(world, 1)
    hidden = world.staging.model_copy(update={"logs_bucket": "nobody-has-this-bucket"})
    found = read_model(hidden, MODEL, live, "x", datetime.now(UTC))
    assert found.live == live
    assert set(found.unseen) == {"rollout", "alarms", "monitor"}


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_is_not_visible(world: World) -> None:
    target = WorldTarget(world, world.apply)
    with mock.patch.object(WorldTarget, "connect", side_effect=MlopsError("no AWS credentials", fix="sign in")):
        found = read_status(target, "staging")
    assert (found.is_up, found.unseen) == (False, {"environment": "no AWS credentials; fix: sign in"})
    with pytest.raises(MlopsError, match="stagging"):
        read_status(target, "stagging")


@pytest.mark.parametrize("given", [True, False])
def test_a_dataset_is_shown_where_it_has_a_monitor(given: bool, tmp_path: Path) -> None:
    root = copy_as_forked(tmp_path / "project")
    edit(root / "Pulumi.dev.yaml", "config", "mlops:environment", "monitoring", value={"datasets": given})
    target = mock.MagicMock(project=Project(root))
    with (
        mock.patch.object(module, "_descriptor", side_effect=lambda _, name: SimpleNamespace(name=name)),
        mock.patch.object(module, "read_model", return_value=model()),
        mock.patch.object(module, "read_dataset", side_effect=lambda _, name, _expected: DatasetStatus(name)),
    ):
        shown = [[each.dataset for each in read_status(target, one).datasets] for one in ("dev", "staging")]
    assert shown == [list(Project(root).dataset_names) if given else [], []]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("spark", ("models-dev-spark", "spark")),
        ("spark-worker", ("models-dev-spark", "sail")),
        ("ingest-m1", ("models-dev", "ingest-m1")),
    ],
)
def test_logs_of_spark_are_in_the_namespace_of_its_server(name: str, place: tuple[str, str], tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []
    target = mock.MagicMock(project=Project(copy_as_forked(tmp_path / "project")))
    with (
        mock.patch("pipelines.cli.operations.open_target", return_value=target),
        mock.patch("pipelines.cluster.pod_logs.show_logs", lambda *given, **_: shown.append(given[:2])),
    ):
        done = CliRunner().invoke(mlops, ["logs", name, "--env", "dev"])
    assert (done.exit_code, shown) == (0, [place])


@pytest.mark.parametrize("text", ["10", "m", "0m", "1w", "-5m"])
def test_a_time_that_cannot_be_read_is_a_usage_error(text: str) -> None:
    done = CliRunner().invoke(mlops, ["logs", "m1", "--env", "dev", f"--since={text}"])
    assert done.exit_code == 2
    assert "such as 10m" in done.output
