"""Each case in tests/refused is refused by its gate, and by no other.

The second half tests these tests: one of them fails if a gate, or a single check of a gate, is deleted.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.promotion.gates import GATES, admits, judge
from pipelines.promotion.verdict import passed
from tests.pipelines.promotion.gate_checks import checks, without
from tests.pipelines.promotion.test_gates import CASES, changed
from tests.pipelines.promotion.test_verdicts import SITUATIONS, facts_of, line

NAMED = [f"{gate}: {case['because']}" for gate, case in CASES]


def check(gate: str, case: dict[str, Any]) -> None:
    """Fail unless this gate, and no other, refuses for the stated reason."""
    verdicts = {v.gate: v for v in judge(changed(case["change"]))}
    found = verdicts.pop(gate)
    assert found.outcome == case["outcome"]
    assert case["says"] in found.why
    assert found.fix
    assert found.threshold
    assert [v for v in verdicts.values() if v.outcome != "pass"] == []
    assert not admits((found, *verdicts.values()))


@pytest.mark.parametrize(("gate", "case"), CASES, ids=NAMED)
def test_each_case_is_refused_by_its_gate_alone_for_the_stated_reason(gate: str, case: dict[str, Any]) -> None:
    check(gate, case)


def test_every_gate_has_cases() -> None:
    assert {gate for gate, _ in CASES} == set(GATES)


# --- deleting a gate's check makes a test fail ------------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "case"), CASES, ids=NAMED)
def test_each_case_is_admitted_without_its_gate(
    gate: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATES, gate, lambda _: passed(gate, "any", "none", "not checked"))
    assert admits(judge(changed(case["change"])))
    with pytest.raises(AssertionError):
        check(gate, case)


@pytest.mark.parametrize(("gate", "number"), list(checks(GATES)))
def test_removing_a_check_changes_a_verdict(gate: str, number: int) -> None:
    deleted = without(GATES, gate, number)

    def differs(situation: str) -> bool:
        try:
            return line(deleted(facts_of(situation))) != line(GATES[gate](facts_of(situation)))
        except (AttributeError, TypeError):  # it continues without the missing fact
            return True

    own = [name for name in SITUATIONS if name.startswith(f"{gate}: ")]
    assert any(differs(name) for name in (*own, *SITUATIONS)), "removing this check changes no verdict"
