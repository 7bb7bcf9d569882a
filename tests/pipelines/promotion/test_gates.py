"""Verdicts that tests/refused does not cover; see test_refused.py."""

from __future__ import annotations

import copy
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.declarations.evaluation import Evaluation
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import GATES, admits, judge
from pipelines.promotion.gates.champion import Comparison, compare
from pipelines.promotion.verdict import Verdict
from pipelines.training.metrics import bootstrap

REFUSED = Path(__file__).parents[2] / "refused"
ACCEPTED: dict[str, Any] = json.loads((REFUSED / "accepted.json").read_text())
CASES = [(path.stem, case) for path in sorted(REFUSED.glob("*.yaml")) for case in yaml.safe_load(path.read_text())]


def facts(**changes: Any) -> Facts:
    """Return the accepted facts with some values changed; double underscores stand for dots: `files__1__found`."""
    return changed({path.replace("__", "."): value for path, value in changes.items()})


def changed(changes: dict[str, Any]) -> Facts:
    """Return the accepted facts with some values changed: dotted path → value, or a word for a computed value."""
    value = copy.deepcopy(ACCEPTED)
    for path, new in changes.items():
        place: Any = value
        *way, last = path.split(".")
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if new == "truth":
            new = value["evaluation"]["sample"]["truth"]
        elif new == "disjoint":
            new = sorted(key[::-1] for key in place[last])
        elif new == "flat":
            new = [1.0] * len(place[last])
        if new is None and path == "evaluation.metrics.r2":
            del place[last]
        elif isinstance(place, list):
            place[int(last) : int(last) + 1] = [new]
        else:
            place[last] = new
    return Facts.model_validate_json(json.dumps(value))


def verdict(gate: str, **changes: Any) -> Verdict:
    return GATES[gate](facts(**changes))


def test_the_accepted_facts_pass_every_gate() -> None:
    verdicts = judge(facts())
    assert [v for v in verdicts if v.outcome != "pass"] == []
    assert admits(verdicts)


def test_a_missing_verdict_refuses_the_promotion() -> None:
    assert not admits(judge(facts())[1:])


def test_order_and_soak_refuse_a_bundle_that_was_never_verified() -> None:
    refused = {v.gate: v.outcome for v in judge(facts(predecessor__verified_at=None)) if v.outcome != "pass"}
    assert refused == {"order": "fail", "soak": "fail"}


def test_the_first_environment_needs_no_predecessor() -> None:
    first = facts(predecessor=None, promotes_from=None)
    assert admits(judge(first))


def test_a_first_release_needs_no_champion() -> None:
    first = facts(live=None, champion=None, live_schema=None, release__replaces=None)
    assert admits(judge(first))
    assert GATES["champion"](first).figure == "first release"


def test_no_gate_passes_without_the_facts_it_needs() -> None:
    blind = facts(
        files=[], signatures=[], origin=None, policy=None, evaluation=None, runtime=None, request_schema=None,
        contract_breaks=None, quarantined=None, freezes=None, serving_image=None,
    )  # fmt: skip
    passing = {v.gate for v in judge(blind) if v.outcome == "pass"}
    assert passing == {"scope", "order", "freshness"}


@pytest.mark.parametrize("gate", ["champion", "compatibility"])
def test_an_unknown_live_bundle_is_not_taken_for_a_first_release(gate: str) -> None:
    found = verdict(gate, live=None, champion=None, live_schema=None, unknown={"live": "s3:ListBucket was denied"})
    assert (found.outcome, found.why) == (
        "inconclusive",
        "live is unknown: s3:ListBucket was denied",
    )


@pytest.mark.parametrize(
    ("live", "candidate"),
    [
        ({"maximum": 120.0}, {"exclusive_maximum": 200.0, "maximum": None}),
        ({"exclusive_maximum": 120.0, "maximum": None}, {"maximum": 120.0}),
        ({"exclusive_maximum": 120.0, "maximum": 130.0}, {"maximum": 125.0}),
        ({"minimum": 0.0}, {"minimum": None}),
        ({"values": [1, 2]}, {"values": [2, 1, 3]}),
        ({"values": [1, 2]}, {"values": None}),
        ({"nullable": False}, {"nullable": True}),
    ],
)
def test_a_schema_that_accepts_more_requests_is_compatible(live: dict[str, Any], candidate: dict[str, Any]) -> None:
    changes = {f"live_schema__inputs__0__columns__0__{key}": value for key, value in live.items()}
    changes |= {f"request_schema__inputs__0__columns__0__{key}": value for key, value in candidate.items()}
    assert verdict("compatibility", **changes).outcome == "pass"


def test_an_additional_output_is_compatible() -> None:
    more = {"name": "spread", "datatype": "FP32", "shape": [-1, 1]}
    assert verdict("compatibility", request_schema__outputs__1=more).outcome == "pass"


def test_a_release_without_a_bundle_is_refused() -> None:
    found = verdict("digest", release__bundle=None, release__replaces=None)
    assert (found.outcome, found.figure) == ("fail", "no bundle")


@pytest.mark.parametrize(
    ("gate", "path", "at_the_bound"),
    [
        ("thresholds", "evaluation__metrics__rmse__value", 65.0),
        ("thresholds", "evaluation__metrics__r2__value", 0.30),
        ("fairness", "evaluation__groups__sex__ratio__mae", 1.35),
        ("fairness", "evaluation__groups__sex__groups__2__rows", 30),
        ("runtime", "runtime__p99_ms", 20.0),
        ("runtime", "runtime__requests", 100),
        ("soak", "predecessor__requests", 20),
        ("soak", "predecessor", {**ACCEPTED["predecessor"], "requests": 1000, "errors": 1}),
        ("soak", "predecessor__verified_at", "2026-03-02T09:59:59Z"),
        ("freeze", "freezes", [{"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T10:00:00Z", "reason": "over"}]),
    ],
)
def test_a_value_equal_to_its_bound_passes(gate: str, path: str, at_the_bound: Any) -> None:
    assert verdict(gate, **{path: at_the_bound}).outcome == "pass"


@pytest.mark.parametrize("gate", ["thresholds", "champion", "fairness", "runtime", "soak"])
def test_a_gate_is_inconclusive_without_the_policy(gate: str) -> None:
    assert verdict(gate, policy=None).outcome == "inconclusive"


@pytest.mark.parametrize("gate", ["thresholds", "champion", "fairness", "leakage"])
def test_a_gate_is_inconclusive_without_an_evaluation(gate: str) -> None:
    assert verdict(gate, evaluation=None).outcome == "inconclusive"


def against(noise: float, seed: int) -> Verdict:
    """Return the champion verdict if the live model predicts like the candidate, with some noise."""
    rng = np.random.default_rng(seed)
    predicted = np.asarray(ACCEPTED["evaluation"]["sample"]["predicted"])
    truth = np.asarray(ACCEPTED["evaluation"]["sample"]["truth"])
    live = truth + (1 - noise) * (predicted - truth) + rng.normal(0, 3, len(truth))
    return verdict("champion", champion__sample__predicted=live.round(3).tolist())


def test_a_candidate_that_may_be_worse_fails_or_is_inconclusive() -> None:
    undecided, refused = against(0.005, 1), against(0.035, 1)
    assert (undecided.outcome, refused.outcome) == ("inconclusive", "fail")
    for found in (undecided, refused):
        assert "it may be worse" in found.why
        assert found.fix


# --- the comparison of two models -------------------------------------------------------------------------------------


def compared(rows: int, *, worse: float = 0.1, metric: str = "mae", confidence: float = 0.9) -> Comparison:
    """Compare two models on the first rows; the candidate's error is larger by `worse` on every other row."""
    value = copy.deepcopy(ACCEPTED["evaluation"])
    sample = {key: value["sample"][key][:rows] for key in ("keys", "truth")}
    errors = [1.0 + n % 3 for n in range(rows)]
    old = [truth + error for truth, error in zip(sample["truth"], errors, strict=True)]
    new = [t + e * (1 + worse * (n % 2)) for n, (t, e) in enumerate(zip(sample["truth"], errors, strict=True))]
    champion, candidate = (
        Evaluation.model_validate_json(json.dumps(value | {"sample": sample | {"predicted": predicted}}))
        for predicted in (old, new)
    )
    return compare(champion, candidate, metric, confidence)


def test_too_few_rows_are_not_compared() -> None:
    found = compared(29)
    assert found.rows == 29
    assert all(math.isnan(v) for v in (found.champion, found.candidate, found.regression, found.low, found.high))
    assert compared(30).champion == pytest.approx(2.0)


def test_an_undefined_metric_is_not_compared() -> None:
    found = compared(40, metric="accuracy")
    assert found.rows == 40 and math.isnan(found.champion) and math.isnan(found.high)


def test_the_interval_is_a_bootstrap_paired_by_row() -> None:
    """By hand: each sample draws rows with replacement and measures both models on them."""
    found = compared(40)
    errors = np.array([1.0 + n % 3 for n in range(40)])
    more = errors * (1 + 0.1 * (np.arange(40) % 2))
    (weights,) = bootstrap(40, seed=0)
    shares = np.sort((weights @ more - weights @ errors) / (weights @ errors))
    assert (found.champion, found.candidate) == pytest.approx((errors.mean(), more.mean()))
    assert found.regression == pytest.approx(more.mean() / errors.mean() - 1)
    assert (found.low, found.high) == pytest.approx((shares[49], shares[949]))


def test_the_interval_does_not_depend_on_global_random_state() -> None:
    first = compared(40)
    np.random.seed(1)
    assert compared(40) == first


def test_a_comparison_with_a_perfect_model_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perfect = {"champion.sample.predicted": "truth"}
        assert GATES["champion"](changed(perfect)).outcome == "fail"
        both = {**perfect, "evaluation.sample.predicted": "truth"}
        assert GATES["champion"](changed(both)).outcome == "pass"


@pytest.mark.parametrize(
    ("regression", "low", "high", "outcome", "says"),
    [
        (0.01, 0.0, 0.02, "pass", "on the same 40 rows"),
        (0.021, 0.021, 0.021, "fail", ": it is worse"),
        (0.02, 0.02, 0.03, "inconclusive", "it may be worse"),
        (0.03, 0.02, 0.03, "fail", "it may be worse"),
        (0.0, -0.1, 0.1, "inconclusive", "it may be worse"),
    ],
)
def test_the_confidence_interval_decides_and_a_value_at_the_bound_passes(
    monkeypatch: pytest.MonkeyPatch, regression: float, low: float, high: float, outcome: str, says: str
) -> None:
    found = Comparison(40, 1.0, 1.0 + regression, regression, low, high)
    monkeypatch.setattr(sys.modules[compare.__module__], "compare", lambda *_: found)
    said = verdict("champion")
    assert said.outcome == outcome and said.why.endswith(says)


# --- compatibility of requests ----------------------------------------------------------------------------------------

OPTIONAL = {"name": "stops", "nullable": True, "optional": True}
INPUT = ACCEPTED["request_schema"]["inputs"][0]


def widened(*columns: dict[str, Any]) -> dict[str, Any]:
    """Return the request schema of a candidate whose numbers have more columns than those of the live bundle."""
    wider = {
        **INPUT,
        "shape": [-1, len(INPUT["columns"]) + len(columns)],
        "columns": [*INPUT["columns"], *columns],
    }
    return {**ACCEPTED["request_schema"], "inputs": [wider, *ACCEPTED["request_schema"]["inputs"][1:]]}


def test_a_feature_that_requests_may_leave_out_breaks_no_caller() -> None:
    found = verdict("compatibility", request_schema=widened(OPTIONAL, {**OPTIONAL, "name": "weight"}))
    assert (found.outcome, found.why) == ("pass", "every valid request stays valid")
    text = {"name": "note", "datatype": "BYTES", "shape": [-1, 1], "columns": [{**OPTIONAL, "name": "note"}]}
    both = {**ACCEPTED["request_schema"], "inputs": [*ACCEPTED["request_schema"]["inputs"], text]}
    assert verdict("compatibility", request_schema=both).outcome == "pass"


def test_a_feature_that_requests_need_is_refused_and_the_fix_names_the_setting() -> None:
    found = verdict("compatibility", request_schema=widened({**OPTIONAL, "optional": False}))
    assert found.outcome == "fail"
    assert "list the new features in serving.optional_features of model.yaml" in found.fix


def test_bounds_of_the_other_columns_still_count() -> None:
    schema = widened(OPTIONAL)
    schema["inputs"][0]["columns"][0] = {**INPUT["columns"][0], "values": [1, 2]}
    found = verdict("compatibility", request_schema=schema)
    assert found.outcome == "fail"
    assert "optional_features" not in found.fix, "it would not help"


def test_a_feature_that_could_be_left_out_must_stay_so() -> None:
    found = verdict(
        "compatibility", live_schema=widened(OPTIONAL), request_schema=widened({**OPTIONAL, "optional": False})
    )
    assert (found.outcome, found.why) == ("fail", "stops may no longer be left out")
    assert verdict("compatibility", live_schema=widened(OPTIONAL)).outcome == "fail", "the feature was removed"
