"""The texts of the verdicts in many situations, compared with golden/verdicts.txt.

`python -m tests.pipelines.promotion.test_verdicts` writes that file; review its diff.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import GATES, judge
from pipelines.promotion.verdict import Verdict
from tests.pipelines.promotion.test_gates import ACCEPTED, CASES, changed

GOLDEN = Path(__file__).parent / "golden" / "verdicts.txt"
FAIRNESS = ACCEPTED["policy"]["gates"]["fairness"][0]
DIFFERENCE = {**FAIRNESS, "maximum_ratio": None, "maximum_difference": 2.5}
PREDICTED = ACCEPTED["evaluation"]["sample"]["predicted"]
TRUTH = ACCEPTED["evaluation"]["sample"]["truth"]
TWO_CLASSES = {
    "evaluation.task": "classification",
    "champion.task": "classification",
    "evaluation.classes": [0, 1],
    "champion.classes": [0, 1],
    "evaluation.sample.truth": [n % 2 for n in range(40)],
    "champion.sample.truth": [n % 2 for n in range(40)],
    "evaluation.sample.predicted": [[0.7, 0.3] if n % 2 == 0 or n == 1 else [0.2, 0.8] for n in range(40)],
    "champion.sample.predicted": [[0.7, 0.3] if n % 2 == 0 or n in (1, 3, 5) else [0.2, 0.8] for n in range(40)],
}


def worse(share: float, spread: float = 0.0) -> list[float]:
    """Return predictions whose error is larger than the accepted one by `share`, plus or minus `spread` by row."""
    rows = enumerate(zip(PREDICTED, TRUTH, strict=True))
    return [truth + (found - truth) * (1 + share + (spread if n % 2 else -spread)) for n, (found, truth) in rows]


def champion(**changes: Any) -> dict[str, Any]:
    """Return changes: the live model predicts like the candidate, and `changes`."""
    same = {"champion.sample.predicted": PREDICTED, "champion.sample.truth": TRUTH}
    return same | {key.replace("__", "."): value for key, value in changes.items()}


SITUATIONS: dict[str, dict[str, Any]] = {
    "the first release": {"live": None, "champion": None, "live_schema": None, "release.replaces": None},
    "the first environment": {"predecessor": None, "promotes_from": None},
    "a release of no bundle": {"release.bundle": None, "release.replaces": None},
    "a release whose bundle was never verified before": {"predecessor.verified_at": None},
    "the predecessor is another environment": {"predecessor.environment": "qa"},
    "seven files change": {"changed_files": [f"file-{n}" for n in range(6)] + ACCEPTED["changed_files"]},
    "five files change": {"changed_files": [f"file-{n}" for n in range(4)] + ACCEPTED["changed_files"]},
    "six files change": {"changed_files": [f"file-{n}" for n in range(5)] + ACCEPTED["changed_files"]},
    "two files of the bundle are wrong": {"files.0.found": None, "files.1.expected": None},
    "nothing is signed": {"signatures": []},
    "an invalid signature without a reason": {"signatures.0.signer": None},
    "two environments that may sign": {"signatures.1.signer": "qa", "signatures.1.expected": "qa"},
    "the bundle names no commit": {"origin.commits": [], "origin.commit_on_main": None},
    "the bundle names two commits, none on main": {
        "origin.commits": ["b" * 40, "c" * 40],
        "origin.commit_on_main": None,
    },
    "a bound with minimum and maximum": {
        "policy.gates.thresholds.0": {"metric": "rmse", "minimum": 41.0, "maximum": 65.0},
    },
    "two bounds are broken": {"evaluation.metrics.rmse.value": 70.0, "evaluation.metrics.r2.value": 0.1},
    "one bound is broken, one metric has no value": {
        "evaluation.metrics.rmse.value": 70.0,
        "evaluation.metrics.r2.value": None,
    },
    "two metrics have no value": {
        "evaluation.metrics.rmse.value": None,
        "evaluation.metrics.r2.value": None,
    },
    "no fairness bound is declared": {"policy.gates.fairness": []},
    "a difference above its bound": {"policy.gates.fairness": [DIFFERENCE]},
    "a difference at its bound": {
        "policy.gates.fairness": [{**DIFFERENCE, "maximum_difference": 3.0}],
    },
    "ratio and difference, one broken": {"policy.gates.fairness": [FAIRNESS, DIFFERENCE]},
    "ratio and difference, both broken": {
        "policy.gates.fairness": [FAIRNESS, DIFFERENCE],
        "evaluation.groups.sex.ratio.mae": 2.0,
    },
    "ratio and difference, both kept": {
        "policy.gates.fairness": [FAIRNESS, {**DIFFERENCE, "maximum_difference": 4.0}],
    },
    "a group too small for one bound, another bound broken": {
        "policy.gates.fairness": [{**FAIRNESS, "minimum_group_size": 1000}, DIFFERENCE],
    },
    "one ratio undefined, another bound broken": {
        "policy.gates.fairness": [FAIRNESS, DIFFERENCE],
        "evaluation.groups.sex.ratio.mae": None,
    },
    "two attributes, one not evaluated": {
        "policy.gates.fairness": [{**FAIRNESS, "attribute": "age"}, FAIRNESS],
    },
    "two undecided attributes": {
        "policy.gates.fairness": [{**FAIRNESS, "attribute": "age"}, FAIRNESS],
        "evaluation.groups.sex.groups.2.rows": 5,
    },
    "two small groups": {
        "evaluation.groups.sex.groups.1.rows": 3,
        "evaluation.groups.sex.groups.2.rows": 5,
    },
    "an undefined difference": {
        "policy.gates.fairness": [DIFFERENCE],
        "evaluation.groups.sex.difference.mae": None,
    },
    "the live model predicts the same": champion(),
    "the live model is slightly better, within the bound": champion(
        champion__sample__predicted=worse(-0.01),
    ),
    "the interval crosses the bound": champion(
        champion__sample__predicted=worse(-0.01, 0.2),
    ),
    "the mean is above the bound, the interval crosses it": champion(
        champion__sample__predicted=worse(-0.05, 0.2),
    ),
    "the live model is clearly worse": champion(champion__sample__predicted=worse(0.5)),
    "the live model is perfect": champion(champion__sample__predicted=TRUTH),
    "both models are perfect": champion(
        champion__sample__predicted=TRUTH,
        evaluation__sample__predicted=TRUTH,
    ),
    "a metric for which higher is better": champion(
        champion__sample__predicted=worse(-0.3),
        policy__gates__champion__metric="r2",
    ),
    "a lower confidence": champion(
        champion__sample__predicted=worse(-0.01, 0.2),
        policy__gates__champion__confidence=0.5,
    ),
    "a classifier": {**TWO_CLASSES, "policy.gates.champion.metric": "accuracy"},
    "the classes differ": {**TWO_CLASSES, "champion.classes": [0, 2]},
    "only the task differs": {"champion.task": "classification"},
    "29 shared rows": {
        "champion.sample.keys": sorted(f"{n:016x}" for n in range(11)) + ACCEPTED["evaluation"]["sample"]["keys"][11:],
    },
    "30 shared rows": {
        "champion.sample.keys": sorted(f"{n:016x}" for n in range(10)) + ACCEPTED["evaluation"]["sample"]["keys"][10:],
    },
    "six narrower columns": {
        "request_schema.inputs.0.columns.0.minimum": 20.0,
        "request_schema.inputs.0.columns.0.maximum": 30.0,
        "request_schema.inputs.0.columns.0.values": [1, 2],
        "request_schema.inputs.0.columns.1.minimum": 20.0,
        "request_schema.inputs.0.columns.1.maximum": 30.0,
        "request_schema.inputs.0.columns.1.values": [1, 2],
    },
    "two values removed": {
        "live_schema.inputs.0.columns.0.values": [1, 2, 3],
        "request_schema.inputs.0.columns.0.values": [3],
    },
    "six breaking contract changes": {"contract_breaks": [f"break {n}" for n in range(6)]},
    "latency at its budget": {"runtime.p99_ms": 20.0},
    "a failure in another runtime version": {"runtime.version": "onnxruntime 1.20.0", "runtime.problem": "it broke"},
    "unknown facts without reasons": dict.fromkeys(
        ("policy", "evaluation", "runtime", "origin", "freezes", "quarantined", "request_schema", "contract_breaks")
    ),
    "an error in a thousand": {"predecessor.requests": 1000, "predecessor.errors": 1},
    "two errors in a thousand": {"predecessor.requests": 1000, "predecessor.errors": 2},
    "no errors are allowed": {"policy.gates.soak.maximum_error_rate": 0.0, "predecessor.errors": 1},
    "half a second too early": {"predecessor.verified_at": "2026-03-02T09:59:59.500000Z"},
    "verified in the future": {"predecessor.verified_at": "2026-03-02T10:00:01Z"},
    "too few requests for too short a time": {
        "predecessor.requests": 5,
        "predecessor.verified_at": "2026-03-02T09:59:59.500000Z",
    },
    "the first environment pins no serving image": {
        "predecessor": None,
        "promotes_from": None,
        "serving_image": None,
    },
    "a soak rule of zero": {
        "policy.gates.soak": {"requests": 0, "seconds": 0, "maximum_error_rate": 0.0},
        "predecessor.requests": 0,
        "predecessor.verified_at": "2026-03-02T10:00:00Z",
    },
    "none is live, the release replaces none": {
        "live": None,
        "release.replaces": None,
        "champion": None,
        "live_schema": None,
    },
    "one is live, the release replaces none": {"release.replaces": None},
    "two freezes, one of them now": {
        "freezes": [
            {"start": "2026-02-01T00:00:00Z", "end": "2026-02-02T00:00:00Z", "reason": "over"},
            {"start": "2026-03-02T09:00:00Z", "end": "2026-03-02T11:00:00+00:00", "reason": "now"},
        ]
    },
    "another bundle is quarantined": {"quarantined": {"sha256:" + "d" * 64: "it was bad"}},
    "the live bundle is unknown": {"live": None, "champion": None, "live_schema": None, "unknown": {"live": "denied"}},
}
for _fact, _empty in (
    ("files", []), ("signatures", []), ("origin", None), ("policy", None), ("evaluation", None), ("runtime", None),
    ("request_schema", None), ("champion", None), ("live_schema", None), ("predecessor", None), ("freezes", None),
    ("quarantined", None), ("contract_breaks", None),
):  # fmt: skip
    SITUATIONS[f"{_fact} unreadable"] = {_fact: _empty, "unknown": {_fact: "denied"}}
for _gate, _case in CASES:
    SITUATIONS[f"{_gate}: {_case['because']}"] = _case["change"]


def line(verdict: Verdict) -> str:
    """Format a verdict as the golden file does."""
    parts = (verdict.figure, verdict.threshold, verdict.why, verdict.fix)
    return f"  {verdict.gate} {verdict.outcome}: " + " | ".join(parts)


@cache
def facts_of(situation: str) -> Facts:
    """Return the facts of a situation."""
    return changed(SITUATIONS[situation])


def lines(gates: Iterable[str]) -> Iterator[str]:
    """Yield the verdicts of some gates on the accepted facts; then, for each situation, those that differ."""
    usual = {gate: line(GATES[gate](changed({}))) for gate in gates}
    yield "accepted"
    yield from usual.values()
    for situation in SITUATIONS:
        yield situation
        found = {gate: line(GATES[gate](facts_of(situation))) for gate in usual}
        yield from (said for gate, said in found.items() if said != usual[gate])


@pytest.mark.parametrize("gate", GATES)
def test_verdicts_match_the_golden_file(gate: str) -> None:
    golden = GOLDEN.read_text().splitlines()
    assert list(lines([gate])) == [said for said in golden if said[:2] != "  " or said.startswith(f"  {gate} ")]


def test_the_golden_file_has_no_removed_gate() -> None:
    golden = GOLDEN.read_text().splitlines()
    assert {said.split()[0] for said in golden if said.startswith("  ")} == set(GATES)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_verdict_has_a_reason_and_every_refusal_a_fix(name: str) -> None:
    verdicts = judge(facts_of(name))
    assert [verdict.gate for verdict in verdicts] == list(GATES)
    for verdict in verdicts:
        assert verdict.figure and verdict.threshold and verdict.why
        assert bool(verdict.fix) == (verdict.outcome != "pass")


def test_gates_are_deterministic_and_do_not_change_the_facts() -> None:
    facts = changed({})
    before = facts.model_dump_json()
    assert judge(facts) == judge(Facts.model_validate_json(before))
    assert facts.model_dump_json() == before


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(lines(GATES)) + "\n")
