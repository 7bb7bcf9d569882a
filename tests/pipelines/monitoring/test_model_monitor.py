"""The monitor of a model on an emulated account: requests, labels, reports, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.model import Model
from pipelines.monitoring import model_monitor
from pipelines.monitoring.model_monitor import examine_model, run_model_monitor
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.model_report_page import render_model_page
from pipelines.monitoring.monitor_reports import find_report, read_model_report, report_names
from pipelines.monitoring.request_log import RequestLog
from pipelines.serving.golden import CHECK_REQUEST
from pipelines.serving.request_metrics import BUCKETS
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.monitoring.served_model import (
    DIGEST,
    LABELS,
    NOW,
    OTHER,
    Traffic,
    declared,
    label_table,
    live_bundle,
    with_label_source,
)

pytestmark = pytest.mark.slow

MODEL = declared()


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev")


@pytest.fixture
def traffic(dev: EnvironmentDescriptor) -> Traffic:
    return Traffic(dev)


def verdicts(report: ModelMonitorReport, check: str) -> dict[str, str]:
    return {each.subject: each.verdict for each in report.findings if each.check == check}


def examine(traffic: Traffic, model: Model = MODEL, **facts: Any) -> ModelMonitorReport:
    return examine_model(traffic.environment, model, live_bundle(model, **facts), NOW)


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Labels that the monitor reads instead of a table."""
    labels: list[tuple[Any, ...]] = []
    monkeypatch.setattr(model_monitor, "read_labels", lambda *_: label_table(labels))
    return labels


def test_requests_like_the_training_data_raise_no_alarm(traffic: Traffic) -> None:
    traffic.send(2000)
    traffic.latencies([0, 0, 0, 1990, 10, *[0] * 10])
    report = examine(traffic)
    assert [each for each in report.findings if each.verdict in ("alarm", "watch")] == []
    assert (report.requests, report.rows) == (2000, 2000)
    for check in ("traffic", "errors", "latency", "input-drift", "prediction-drift", "estimated-accuracy",
                  "served-bundle"):  # fmt: skip
        assert set(verdicts(report, check).values()) == {"ok"}, check
    assert verdicts(report, "fairness") == {
        "difference of accuracy by region": "unknown",
        "difference of selection_rate by plan": "ok",
    }


def test_golden_requests_of_deployments_are_left_out(traffic: Traffic) -> None:
    traffic.send(2000)
    traffic.send(500, shift=3.0, ids=[CHECK_REQUEST] * 500)
    report = examine(traffic)
    assert (report.requests, report.rows) == (2000, 2000)
    assert set(verdicts(report, "input-drift").values()) == {"ok"}


def test_shifted_inputs_are_drift_of_that_feature_and_of_the_predictions(traffic: Traffic) -> None:
    traffic.send(2000, shift=0.5)
    report = examine(traffic)
    assert verdicts(report, "input-drift") == {"age": "alarm", "income": "ok", "plan": "ok", "constant": "ok"}
    assert verdicts(report, "prediction-drift")["probabilities[1]"] == "alarm"


def test_missing_unseen_and_extreme_values_are_input_quality(traffic: Traffic) -> None:
    traffic.send(1000, missing=0.05)
    traffic.send(200, plan="enterprise")
    traffic.send(100, shift=9)
    found = verdicts(examine(traffic), "input-quality")
    assert found == {"age": "alarm", "age: range": "alarm", "plan: range": "alarm"}


def test_an_ignored_feature_and_an_excluded_check_are_left_out(traffic: Traffic) -> None:
    traffic.send(1000, shift=1)
    report = examine(traffic, declared(ignored_features=["age"], checks=["input-drift", "traffic"]))
    assert {each.check for each in report.findings} == {"input-drift", "traffic"}
    assert "age" not in verdicts(report, "input-drift")
    assert report.skipped == {"age": "ignored in model.yaml"}


def test_an_empty_window_is_unknown(traffic: Traffic) -> None:
    traffic.send(1000, at=NOW - timedelta(days=2))
    report = examine(traffic)
    assert report.verdict == "unknown"
    assert {each.verdict for each in report.findings} == {"unknown"}


def test_too_little_traffic_is_unknown_and_shows_no_distribution(traffic: Traffic) -> None:
    traffic.send(50, shift=3)
    report = examine(traffic)
    assert report.verdict == "unknown"
    assert not any(one.bars for one in (*report.features, *report.outputs))


def test_without_a_live_bundle_nothing_is_known(dev: EnvironmentDescriptor) -> None:
    report = examine_model(dev, MODEL, None, NOW)
    assert (report.verdict, report.bundle, verdicts(report, "served-bundle")) == ("unknown", None, {"": "unknown"})


@pytest.mark.parametrize(("errors", "verdict"), [(0, "ok"), (3, "watch"), (60, "alarm")])
def test_errors_are_an_alarm_once_chance_does_not_explain_them(traffic: Traffic, errors: int, verdict: str) -> None:
    traffic.send(1000)
    traffic.fail(errors)
    report = examine(traffic)
    assert verdicts(report, "errors") == {"": verdict}
    assert report.requests == 1000 + errors


def test_what_an_overloaded_server_refuses_is_not_an_error_of_the_bundle(traffic: Traffic) -> None:
    traffic.send(1000)
    traffic.fail(600, status=503)
    report = examine(traffic)
    assert verdicts(report, "errors") == {"": "ok"}
    assert report.requests == 1000


@pytest.mark.parametrize(("slow", "verdict"), [(0, "ok"), (12, "watch"), (100, "alarm")])
def test_slow_requests_are_an_alarm_once_chance_does_not_explain_them(
    traffic: Traffic, slow: int, verdict: str
) -> None:
    buckets = [0] * (len(BUCKETS) + 1)
    buckets[3], buckets[9] = 1000 - slow, slow
    traffic.latencies(buckets)
    assert verdicts(examine(traffic), "latency") == {"": verdict}


def test_a_bundle_that_the_ledger_does_not_record_is_an_alarm_and_its_rows_are_not_judged(traffic: Traffic) -> None:
    traffic.send(1000, shift=2, bundle=OTHER)
    report = examine(traffic)
    assert verdicts(report, "served-bundle") == {"": "alarm"}
    assert report.rows == 0


def test_a_release_on_trial_is_no_alarm(traffic: Traffic) -> None:
    traffic.send(100, bundle=OTHER)
    traffic.send(1000, at=NOW - timedelta(hours=2))
    assert verdicts(examine(traffic), "served-bundle") == {"": "watch"}


def test_requests_of_the_bundle_before_do_not_count_against_a_new_one(traffic: Traffic) -> None:
    traffic.send(1000, at=NOW - timedelta(hours=9), bundle=OTHER)
    traffic.send(1000)
    assert verdicts(examine(traffic, since=NOW - timedelta(hours=5)), "served-bundle") == {"": "ok"}


@pytest.mark.parametrize("ahead", [timedelta(minutes=20), timedelta(hours=2), timedelta(hours=14)], ids=str)
def test_clocks_ahead_are_noticed_and_their_requests_wait(traffic: Traffic, ahead: timedelta) -> None:
    traffic.send(500)
    traffic.send(300, at=NOW + ahead)
    report = examine(traffic)
    assert verdicts(report, "traffic") == {"": "ok", "clock": "watch"}
    assert report.rows == 500


@pytest.mark.parametrize(
    ("behind", "rows"), [(timedelta(minutes=20), 800), (timedelta(hours=14), 800), (timedelta(days=2), 500)], ids=str
)
def test_requests_of_a_clock_behind_belong_to_the_time_that_it_told(
    traffic: Traffic, labelled: list[tuple[Any, ...]], behind: timedelta, rows: int
) -> None:
    traffic.send(500)
    traffic.send(300, at=NOW - behind)
    labelled += [(id_, truth) for id_, truth, _ in traffic.known]
    report = examine(traffic, with_label_source())
    assert report.rows == rows, "those of an earlier window are not judged again"
    assert sum(one.labelled for one in report.accuracy if one.metric == report.accuracy[0].metric) == 800
    assert report.labels is not None and report.labels.unknown == 0


@pytest.mark.parametrize(
    ("wrong", "counts"),
    [(timedelta(minutes=4), True), (timedelta(hours=-14), True), (timedelta(hours=14), False)],
    ids=["minutes ahead", "hours behind", "hours ahead"],
)
def test_labels_of_a_clock_ahead_count_when_their_time_has_come_and_those_of_one_behind_at_once(
    traffic: Traffic, labelled: list[tuple[Any, ...]], wrong: timedelta, counts: bool
) -> None:
    traffic.send(400)
    labelled += [(id_, truth, NOW + wrong) for id_, truth, _ in traffic.known]
    model = with_label_source()
    report = examine(traffic, model)
    assert report.labels is not None
    assert (report.labels.joined, report.labels.invalid) == ((400, 0) if counts else (0, 400))
    later = examine_model(traffic.environment, model, live_bundle(model), NOW + timedelta(hours=15))
    assert later.labels is not None and later.labels.joined == 400


def test_a_monitor_with_a_clock_behind_sees_what_it_can_and_says_that_clocks_differ(traffic: Traffic) -> None:
    traffic.send(500)
    traffic.send(300, at=NOW - timedelta(hours=12))
    report = examine_model(traffic.environment, MODEL, live_bundle(MODEL), NOW - timedelta(hours=6))
    assert report.rows == 300
    assert verdicts(report, "traffic")["clock"] == "watch"


def test_broken_lines_and_other_bundles_do_not_hide_the_rest(traffic: Traffic) -> None:
    traffic.send(500)
    record = {"time": "2026-03-10T09:00:00.000Z", "model": "departures", "bundle": OTHER, "id": "x", "rows": 1}
    tensors = {"inputs": {"features": [["a", "b"]]}, "outputs": {"probabilities": [[1]]}}
    other = json.dumps({**record, **tensors})
    traffic.put(NOW - timedelta(hours=3), f"{other}\nnot json\n[1]\n{{}}\n")
    report = examine(traffic)
    assert verdicts(report, "traffic") == {"": "ok", "unreadable records": "watch"}
    assert next(each.figure for each in report.findings if each.subject == "unreadable records") == 3
    assert (report.rows, verdicts(report, "served-bundle")) == (500, {"": "watch"})


def test_requests_with_many_rows_are_judged_by_row(traffic: Traffic) -> None:
    traffic.send(1000, rows_each=50)
    report = examine(traffic)
    assert (report.requests, report.rows) == (20, 1000)


def test_right_labels_are_ok_and_a_changed_relation_is_an_alarm_that_the_estimate_does_not_see(
    traffic: Traffic, labelled: list[tuple[Any, ...]]
) -> None:
    model = with_label_source()
    traffic.send(2000)
    labelled += [(id_, truth) for id_, truth, _ in traffic.known]
    report = examine(traffic, model)
    assert set(verdicts(report, "accuracy").values()) == {"ok"}
    assert (verdicts(report, "calibration"), report.labels and report.labels.joined) == ({"": "ok"}, 2000)
    traffic.send(2000, concept=0.5, at=NOW - timedelta(hours=1))
    labelled += [(id_, truth) for id_, truth, _ in traffic.known[2000:]]
    report = examine(traffic, model)
    accuracy = verdicts(report, "accuracy")
    assert accuracy["change"] == "alarm"
    assert accuracy["accuracy (10% worse than the holdout)"] == "alarm"
    assert verdicts(report, "calibration") == {"": "alarm"}
    assert verdicts(report, "estimated-accuracy") == {"accuracy": "ok"}, "blind, as its reason says"
    assert "blind" in next(each.reason for each in report.findings if each.check == "estimated-accuracy")


@pytest.mark.parametrize(
    ("concept", "found"), [(0.0, "ok"), (0.5, "alarm"), (None, "unknown")], ids=["as good", "worse", "no labels"]
)
def test_labels_that_are_quick_judge_a_release_on_trial(
    traffic: Traffic,
    labelled: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    concept: float | None,
    found: str,
) -> None:
    model = with_label_source()
    monkeypatch.setattr(
        model_monitor, "read_bundle", lambda *given: replace(live_bundle(model), digest=given[2], since=given[3])
    )
    traffic.send(1500, at=NOW - timedelta(minutes=50))
    traffic.send(500, at=NOW - timedelta(minutes=50), bundle=OTHER, concept=concept or 0.0)
    known = traffic.known if concept is not None else traffic.known[:1500]
    labelled += [(id_, truth) for id_, truth, _ in known]
    report = examine(traffic, model)
    assert report.trial == OTHER
    assert verdicts(report, "trial-accuracy") == {"": found}
    assert set(verdicts(report, "accuracy").values()) <= {"ok", "watch"}, (
        "labels of the trial are not about the live one"
    )
    assert (
        verdicts(
            examine(
                traffic,
                model.model_copy(update={"monitoring": model.monitoring.model_copy(update={"checks": ("accuracy",)})}),
            ),
            "trial-accuracy",
        )
        == {}
    )


def test_a_trial_costs_no_second_read_of_hours_without_its_requests(
    traffic: Traffic, labelled: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_label_source()
    monkeypatch.setattr(
        model_monitor, "read_bundle", lambda *given: replace(live_bundle(model), digest=given[2], since=given[3])
    )
    for hours in range(2, 20):
        traffic.send(50, at=NOW - timedelta(hours=hours))
    traffic.send(300, at=NOW - timedelta(minutes=30))
    traffic.send(300, at=NOW - timedelta(minutes=30), bundle=OTHER)
    labelled += [(id_, truth) for id_, truth, _ in traffic.known]
    read: list[str] = []
    content = RequestLog._content

    def noted_content(log: RequestLog, key: str) -> Any:
        read.append(key)
        return content(log, key)

    monkeypatch.setattr(RequestLog, "_content", noted_content)
    report = examine(traffic, model)
    (found,) = [one for one in report.findings if one.check == "trial-accuracy"]
    assert (found.verdict, found.rows) == ("ok", 300)
    twice = {key for key in read if read.count(key) > 1}
    assert len(read) == traffic.objects + len(twice)
    assert len(twice) == 2, "the objects of the hour of the trial"


def test_a_release_on_trial_that_the_registry_does_not_have_is_unknown(
    traffic: Traffic, labelled: list[tuple[Any, ...]]
) -> None:
    traffic.send(500)
    traffic.send(100, at=NOW - timedelta(minutes=5), bundle=OTHER)
    labelled.append(("a", 1))
    assert verdicts(examine(traffic, with_label_source()), "trial-accuracy") == {"": "unknown"}


def test_accuracy_is_restated_by_the_time_of_the_request(traffic: Traffic, labelled: list[tuple[Any, ...]]) -> None:
    model = with_label_source()
    traffic.send(1000, at=NOW - timedelta(days=3), concept=0.4)
    labelled += [(id_, truth) for id_, truth, _ in traffic.known[:300]]
    first = examine(traffic, model)
    labelled += [(id_, truth) for id_, truth, _ in traffic.known[300:]]
    second = examine(traffic, model)
    before, after = ([one for one in each.accuracy if one.labelled] for each in (first, second))
    assert [(one.start, one.rows, one.labelled) for one in before] == [(before[0].start, 1000, 300)]
    assert [(one.start, one.rows, one.labelled) for one in after] == [(before[0].start, 1000, 1000)]
    assert before[0].start.hour == 0, "windows are aligned, so both runs restate the same one"
    assert after[0].high is not None and after[0].low is not None
    assert before[0].high is not None and before[0].low is not None
    assert after[0].high - after[0].low < before[0].high - before[0].low


def test_labels_twice_unknown_contradicting_invalid_and_months_late_have_defined_outcomes(
    traffic: Traffic, labelled: list[tuple[Any, ...]]
) -> None:
    model = with_label_source()
    ids = traffic.send(400)
    truth = {id_: label for id_, label, _ in traffic.known}
    early, late = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    old = traffic.send(100, at=NOW - timedelta(days=90))
    labelled += [(id_, truth[id_], early) for id_ in ids[:300]]
    labelled += [(id_, truth[id_], late) for id_ in ids[:10]]  # twice
    labelled += [(id_, 1 - truth[id_], early - timedelta(hours=1)) for id_ in ids[10:15]]  # an earlier one was wrong
    labelled += [(id_, 1 - truth[id_], early) for id_ in ids[15:20]]  # contradicting at the same time
    labelled += [("nobody", 1, early), (None, 1, early), (ids[300], 2, early), (ids[301], None, early)]
    labelled += [(id_, 1 - truth[id_], NOW + timedelta(days=9)) for id_ in ids[20:27]]  # of the future: never later
    labelled += [(id_, 1, late) for id_ in old]  # months late: their requests are not read any more
    report = examine(traffic, model)
    counts = report.labels
    assert counts is not None
    assert (counts.joined, counts.repeated, counts.replaced, counts.contradicting) == (295, 10, 5, 10)
    assert (counts.unknown, counts.invalid) == (101, 10)
    assert verdicts(report, "accuracy")["contradicting labels"] == "watch"


def test_an_id_that_two_requests_share_gets_no_label(traffic: Traffic, labelled: list[tuple[Any, ...]]) -> None:
    ids = traffic.send(300)
    traffic.send(20, ids=ids[:20])
    labelled += [(id_, truth) for id_, truth, _ in traffic.known[:300]]
    counts = examine(traffic, with_label_source()).labels
    assert counts is not None
    assert (counts.joined, counts.ambiguous) == (280, 20)


def test_a_class_that_never_appears_and_a_constant_prediction_are_no_traceback(
    traffic: Traffic, labelled: list[tuple[Any, ...]]
) -> None:
    traffic.send(400, shift=-30)
    labelled += [(id_, 0) for id_, _, _ in traffic.known]
    report = examine(traffic, with_label_source())
    assert verdicts(report, "accuracy")["accuracy (the gate)"] == "ok"


def test_a_group_of_one_is_never_shown_and_never_ok(traffic: Traffic, labelled: list[tuple[Any, ...]]) -> None:
    traffic.send(600)
    traffic.send(1, plan="solo")
    labelled += [(id_, truth) for id_, truth, _ in traffic.known]
    report = examine(traffic, with_label_source())
    assert verdicts(report, "fairness")["difference of selection_rate by plan"] == "unknown"
    assert "solo" not in report.model_dump_json(exclude={"features"})


def test_a_group_with_wrong_predictions_is_a_fairness_alarm(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic.send(1500)
    labels = [(id_, truth if region == "north" else 1 - truth) for id_, truth, region in traffic.known]
    table = label_table(labels).append_column("region", [[region for _, _, region in traffic.known]])
    monkeypatch.setattr(model_monitor, "read_labels", lambda *_: table)
    report = examine(traffic, with_label_source())
    assert verdicts(report, "fairness")["difference of accuracy by region"] == "alarm"
    assert {one.group for one in report.groups if one.attribute == "region"} == {"north", "south"}
    (found,) = [one for one in report.findings if one.subject == "difference of accuracy by region"]
    assert "north: " in found.groups
    assert "north" not in found.reason, "alarms, issues and commits quote the reason"


def test_labels_are_read_from_their_table_since_the_oldest_window(account: EmulatedAccount, tmp_path: Any) -> None:
    from pipelines.data.ingest import ingest
    from pipelines.data.landing import upload

    dev = make_environment("dev", LABELS)
    traffic = Traffic(dev)
    traffic.send(300)
    file = tmp_path / "labels.csv"
    lines = [f"{id_},{truth},2026-03-10T10:00:00Z,{region}" for id_, truth, region in traffic.known]
    lines += ["ancient,1,2020-01-01T00:00:00Z,north"]
    file.write_text("\n".join(["id,label,known,region", *lines]) + "\n")
    upload(dev, "departures", file)
    ingest(dev, LABELS, lambda _: None)
    report = examine(traffic, with_label_source())
    assert report.labels is not None
    assert (report.labels.read, report.labels.joined) == (300, 300)
    assert verdicts(report, "fairness")["difference of accuracy by region"] == "ok"


def run(dev: EnvironmentDescriptor, namespace: str = "", model: Model = MODEL) -> tuple[ModelMonitorReport, str]:
    return run_model_monitor(dev, model, namespace, NOW)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_monitor, "find_live", lambda *_: live_bundle(MODEL))


def test_a_run_writes_a_report_a_page_and_metrics(traffic: Traffic, live: None) -> None:
    traffic.send(500)
    dev = traffic.environment
    report, name = run(dev, "model-run")
    assert read_model_report(dev, "departures", find_report(dev, "departures", kind="models")) == report
    assert name == "20260310T120000Z-aaaaaaaaaaaa"
    listed = boto3.client("cloudwatch").list_metrics(Namespace="model-run")["Metrics"]
    assert {"Runs", "Alarms", "Requests", "Errors", "EstimatedAccuracy"} <= {each["MetricName"] for each in listed}
    assert all(each["Dimensions"] == [{"Name": "Model", "Value": "departures"}] for each in listed)


def test_decisions_beside_reports_are_not_taken_for_reports(traffic: Traffic, live: None) -> None:
    dev = traffic.environment
    key = "monitoring/models/departures/responses/20260310T120000Z-x.json"
    boto3.client("s3").put_object(Bucket=dev.logs_bucket, Key=key, Body=b"{}")
    _, name = run(dev)
    assert report_names(dev, "departures", "models") == [name]


def test_two_monitors_at_once_write_one_report_of_the_same_second(traffic: Traffic, live: None) -> None:
    traffic.send(300)
    dev = traffic.environment
    with ThreadPoolExecutor(2) as both:
        found = [each.result() for each in [both.submit(run, dev) for _ in range(2)]]
    assert found[0] == found[1]
    assert report_names(dev, "departures", "models") == [found[0][1]]


@pytest.mark.parametrize("after", ["page", "report"])
def test_a_monitor_that_is_killed_midway_sends_no_metrics_and_the_next_run_is_complete(
    traffic: Traffic, live: None, after: str
) -> None:
    dev, namespace = traffic.environment, f"model-killed-after-{after}"
    patched = {"page": "monitor_reports.store.put_new", "report": "model_monitor.publish_metrics"}[after]
    code = f"""
import os, signal
from pipelines.monitoring import model_monitor, monitor_reports
from pipelines.declarations.environment import EnvironmentDescriptor
from tests.pipelines.monitoring.served_model import NOW, declared, live_bundle
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{patched} = die
model_monitor.find_live = lambda *_: live_bundle(declared())
model_monitor.run_model_monitor(EnvironmentDescriptor.from_environ(), declared(), {namespace!r}, NOW)
"""
    environ = {**os.environ, "MLOPS_ENVIRONMENT": dev.model_dump_json()}
    killed = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    cloudwatch = boto3.client("cloudwatch")
    assert cloudwatch.list_metrics(Namespace=namespace)["Metrics"] == []
    assert len(report_names(dev, "departures", "models")) == (0 if after == "page" else 1)
    run(dev, namespace)
    assert cloudwatch.list_metrics(Namespace=namespace)["Metrics"]


def test_a_page_is_small_self_contained_and_always_the_same(traffic: Traffic, labelled: list[tuple[Any, ...]]) -> None:
    traffic.send(1500, plan="<b>bold</b>")
    labelled += [(id_, truth) for id_, truth, _ in traffic.known]
    report = examine(traffic, with_label_source())
    page = render_model_page(report)
    assert page == render_model_page(ModelMonitorReport.model_validate_json(report.model_dump_json()))
    text = page.decode()
    assert "&lt;b&gt;bold" in text and "<b>bold" not in text
    assert not re.search(r"<script|<link|<img|https?://|url\(", text)
    assert len(page) < 150_000
    assert DIGEST in text
