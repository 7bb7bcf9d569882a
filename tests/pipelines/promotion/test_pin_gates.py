"""Each case in tests/refused/pins is refused by its gate, and by no other; removing a check changes a verdict."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.gates.pins import PIN_GATES, admits_pin, judge_pin
from pipelines.promotion.verdict import Verdict, passed
from tests.pipelines.promotion.gate_checks import checks, without

REFUSED = Path(__file__).parents[2] / "refused" / "pins"
ACCEPTED: dict[str, Any] = json.loads((REFUSED / "accepted.json").read_text())
CASES = [(path.stem, case) for path in sorted(REFUSED.glob("*.yaml")) for case in yaml.safe_load(path.read_text())]
NAMED = [f"{gate}: {case['because']}" for gate, case in CASES]

FURTHER: dict[str, dict[str, Any]] = {
    "accepted": {},
    "the first environment": {"promotes_from": None, "predecessor": None},
    "the training image": {"image": "training", "trials": {}},
    "no bundle is live": {"live": {}, "trials": {}},
    "no bundle is live, none was served before": {"live": {}, "trials": {}, "predecessor.models": []},
    "the pin is removed, nothing is live": {
        "digest": None, "origin": None, "sizes": None, "scans": None, "trials": None, "predecessor": None, "live": {},
    },
    "the pin is removed, it is unknown what is live": {"digest": None, "live": None, "unknown": {"live": "denied"}},
    "it is unknown what is live": {"live": None, "trials": None, "unknown": {"live": "denied", "trials": "denied"}},
    "the rules are unknown": {"rules": None},
    "the sizes are unknown": {"sizes": None},
    "no size is known": {"sizes": {}},
    "the image is as large as allowed": {"sizes.amd64": 500_000_000},
    "only critical vulnerabilities refuse": {
        "rules.severity": "critical",
        "scans.arm64.findings": [{"name": "CVE-2026-0004", "severity": "high"}],
    },
    "an unknown severity": {"scans.arm64.findings": [{"name": "CVE-2026-0004", "severity": "untriaged"}]},
    "eight files change": {"changed_files": [f"file-{n}" for n in range(7)] + ["Pulumi.staging.yaml"]},
    "a soak that has just ended": {"predecessor.verified_at": "2026-03-02T09:50:00Z"},
}  # fmt: skip


def changed(changes: dict[str, Any]) -> PinFacts:
    """Return the accepted facts with some values changed: dotted path → value."""
    value = copy.deepcopy(ACCEPTED)
    for path, new in changes.items():
        place: Any = value
        *way, last = path.split(".")
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = new
    return PinFacts.model_validate_json(json.dumps(value))


def verdict(gate: str, situation: str) -> Verdict:
    return PIN_GATES[gate](changed(FURTHER[situation]))


def check(gate: str, case: dict[str, Any]) -> None:
    """Fail unless this gate refuses for the stated reason, and no other gate fails."""
    verdicts = {v.gate: v for v in judge_pin(changed(case["change"]))}
    found = verdicts.pop(gate)
    assert found.outcome == case["outcome"]
    assert case["says"] in found.why
    assert found.fix and found.threshold
    assert [v for v in verdicts.values() if v.outcome != "pass"] == []
    assert not admits_pin((found, *verdicts.values()))


def test_the_accepted_facts_are_accepted() -> None:
    assert [v.outcome for v in judge_pin(changed({}))] == ["pass"] * len(PIN_GATES)
    assert admits_pin(judge_pin(changed({})))


@pytest.mark.parametrize(("gate", "case"), CASES, ids=NAMED)
def test_each_case_is_refused_by_its_gate_alone_for_the_stated_reason(gate: str, case: dict[str, Any]) -> None:
    check(gate, case)


def test_every_gate_has_cases() -> None:
    assert {gate for gate, _ in CASES} == set(PIN_GATES)


@pytest.mark.parametrize(("gate", "case"), CASES, ids=NAMED)
def test_each_case_is_admitted_without_its_gate(
    gate: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PIN_GATES, gate, lambda _: passed(gate, "any", "none", "not checked"))
    assert admits_pin(judge_pin(changed(case["change"])))
    with pytest.raises(AssertionError):
        check(gate, case)


@pytest.mark.parametrize(
    ("situation", "refusing"),
    [
        ("the first environment", set()),
        ("the training image", {"order"}),  # the record is about the serving image
        ("no bundle is live", set()),
        ("no bundle is live, none was served before", set()),
        ("the pin is removed, nothing is live", set()),
        ("the pin is removed, it is unknown what is live", {"source"}),
        ("it is unknown what is live", {"golden", "order"}),
        ("the rules are unknown", {"vulnerabilities", "size", "order"}),
        ("the sizes are unknown", {"size", "architecture"}),
        ("no size is known", {"size", "architecture"}),
        ("the image is as large as allowed", set()),
        ("only critical vulnerabilities refuse", set()),
        ("an unknown severity", set()),
        ("eight files change", {"scope"}),
        ("a soak that has just ended", set()),
    ],
)
def test_gates_agree_on_other_situations(situation: str, refusing: set[str]) -> None:
    verdicts = judge_pin(changed(FURTHER[situation]))
    assert {v.gate for v in verdicts if v.outcome != "pass"} == refusing
    for found in verdicts:
        assert found.figure and found.threshold and found.why
        assert bool(found.fix) == (found.outcome != "pass")


# --- deleting a gate's check makes a test fail ------------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "number"), list(checks(PIN_GATES)))
def test_removing_a_check_changes_a_verdict(gate: str, number: int) -> None:
    deleted = without(PIN_GATES, gate, number)

    def differs(changes: dict[str, Any]) -> bool:
        facts = changed(changes)
        try:
            return bool(deleted(facts) != PIN_GATES[gate](facts))
        except (AttributeError, TypeError, ValueError):  # it continues without the missing fact
            return True

    situations = [case["change"] for name, case in CASES if name == gate] + list(FURTHER.values())
    assert any(map(differs, situations)), "removing this check changes no verdict"
