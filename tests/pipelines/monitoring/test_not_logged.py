"""The monitor of a model whose log lacks personal values, holds a sample of the requests, or lost some of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.declarations.baseline import Baseline
from pipelines.declarations.inference_logging import is_sampled
from pipelines.declarations.model import Model
from pipelines.monitoring import model_monitor
from pipelines.monitoring.model_checks import judge_lost
from pipelines.monitoring.model_monitor import LiveBundle, examine_model
from pipelines.monitoring.model_report import ModelMonitorReport
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.monitoring.served_model import (
    NOW,
    PLANS,
    Traffic,
    declared,
    label_table,
    live_bundle,
    with_label_source,
)

pytestmark = pytest.mark.slow

MODEL = declared()
KEY = b"key of the bundle"
AGE = "not logged: the contract classifies it as personal"


@pytest.fixture
def traffic(account: EmulatedAccount) -> Traffic:
    return Traffic(make_environment("dev"))


def live(model: Model = MODEL) -> LiveBundle:
    """Return the bundle, whose schema lists the plans."""
    made = live_bundle(model)
    features, texts = made.schema.inputs
    listed = texts.model_copy(update={"columns": (texts.columns[0].model_copy(update={"values": PLANS}),)})
    return replace(made, schema=made.schema.model_copy(update={"inputs": (features, listed)}))


def examine(traffic: Traffic, model: Model = MODEL, bundle: LiveBundle | None = None) -> ModelMonitorReport:
    return examine_model(traffic.environment, model, bundle or live(model), NOW)


def findings(report: ModelMonitorReport, check: str) -> dict[str, tuple[str, str]]:
    return {each.subject: (each.verdict, each.reason) for each in report.findings if each.check == check}


def withhold(record: dict[str, Any]) -> None:
    """Leave out the age and the plan, and keep the group of the plan, as a server does."""
    for row in record["inputs"]["features"]:
        row[0] = None
    plans = record["inputs"].pop("texts")
    record |= {"withheld": ["age", "plan"], "groups": {"plan": [plan for (plan,) in plans]}}


def test_a_feature_that_is_not_logged_is_unknown_and_its_group_is_judged(traffic: Traffic) -> None:
    traffic.send(1500, edit=withhold, rows_each=2)
    report = examine(traffic)
    drift = findings(report, "input-drift")
    assert drift.pop("age") == ("unknown", AGE)
    assert {name: verdict for name, (verdict, _) in drift.items()} == {"income": "ok", "plan": "ok", "constant": "ok"}
    assert findings(report, "input-quality")["age"] == ("unknown", AGE)
    assert findings(report, "fairness")["difference of selection_rate by plan"][0] == "ok"
    assert [each.column for each in report.features] == ["income", "plan", "constant"]
    assert report.skipped == {"age": "personal, and not logged"}
    ignoring = examine(traffic, declared(ignored_features=["age"]))
    assert "age" not in findings(ignoring, "input-drift")


def test_drift_of_a_group_is_seen(traffic: Traffic) -> None:
    traffic.send(1000, edit=withhold)
    traffic.send(1000, edit=withhold, plan="pro")
    assert findings(examine(traffic), "input-drift")["plan"][0] == "alarm"


def test_what_some_records_lack_is_unknown_as_well(traffic: Traffic) -> None:
    traffic.send(500)
    traffic.send(500, edit=withhold)
    drift = findings(examine(traffic), "input-drift")
    assert drift["age"] == ("unknown", AGE)
    assert drift["plan"][0] == "ok"


def test_fairness_by_an_attribute_that_is_not_logged_is_unknown(traffic: Traffic) -> None:
    def without_groups(record: dict[str, Any]) -> None:
        withhold(record)
        del record["groups"]

    traffic.send(500, edit=without_groups)
    verdict, reason = findings(examine(traffic), "fairness")["difference of selection_rate by plan"]
    assert verdict == "unknown"
    assert reason == "not logged: the contract classifies it as personal and does not list its values"


def test_a_feature_that_the_baseline_leaves_out_is_unknown(traffic: Traffic) -> None:
    bundle = live()
    known = {name: each for name, each in bundle.baseline.features.items() if name != "income"}
    shorter = Baseline(model=MODEL.name, features=known, outputs=bundle.baseline.outputs)
    traffic.send(500)
    drift = findings(examine(traffic, bundle=replace(bundle, baseline=shorter)), "input-drift")
    assert drift["income"] == ("unknown", AGE)


def test_requests_of_a_sample_are_estimated_and_errors_are_not(traffic: Traffic) -> None:
    traffic.send(400, edit=lambda record: record.update(sample=0.1))
    traffic.fail(40)
    report = examine(traffic)
    assert (report.requests, report.rows, report.sample) == (4040, 400, 0.1)
    assert findings(report, "errors")[""][1].startswith("40 of 4,040 requests ended")
    assert findings(report, "traffic")[""][1] == (
        "400 rows were predicted in the logged sample of 0.1 of the requests"
    )  # fmt: skip


def test_labels_of_requests_outside_of_the_sample_are_not_unknown(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"r{number}" for number in range(1000)]
    chosen = [name for name in names if is_sampled(json.dumps(name).encode(), 0.5, KEY)]
    traffic.send(len(chosen), ids=chosen, edit=lambda record: record.update(sample=0.5))
    labels = [(name, 1) for name in [*names, "strange"]]
    monkeypatch.setattr(model_monitor, "read_labels", lambda *_: label_table(labels))
    counts = examine(traffic, with_label_source(), replace(live(), sampling_key=KEY)).labels
    assert counts is not None
    assert (counts.joined, counts.unknown) == (len(chosen), int(is_sampled(b'"strange"', 0.5, KEY)))


def test_lost_records_are_reported_and_many_are_an_alarm(traffic: Traffic) -> None:
    traffic.send(400)
    traffic.latencies([400, *[0] * 14], lost=2)
    report = examine(traffic)
    assert report.lost == 2
    assert findings(report, "traffic")["lost records"] == (
        "watch",
        "2 of 402 records of the log were lost; other checks do not see them",
    )
    assert judge_lost(0, 0) == []
    assert [each.verdict for lost in (1, 101) for each in judge_lost(lost, 9900)] == ["watch", "alarm"]
    assert judge_lost(5, 0)[0].verdict == "alarm"
