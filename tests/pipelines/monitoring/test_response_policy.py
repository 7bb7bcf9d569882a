"""What the alarms of a model's monitor lead to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.declarations.model_monitoring import MODEL_CHECKS
from pipelines.declarations.model_responses import CheckResponses, Hysteresis, ModelResponses, Response
from pipelines.monitoring.alarm import LONGEST_REASON
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import CheckKind, MonitorFinding, MonitorVerdict, overall_verdict
from pipelines.monitoring.response_policy import ESTIMATED_HARM, MEASURED_HARM, ResponseDecision, decide

LIVE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
AT_ONCE = Hysteresis(alarms=1, of=1)


def report(day: int, *alarms: str, bundle: str | None = LIVE, verdict: MonitorVerdict = "alarm") -> ModelMonitorReport:
    findings = tuple(
        MonitorFinding.model_validate({"check": check, "verdict": verdict, "reason": f"{check} is off"})
        for check in alarms
    )
    return ModelMonitorReport(
        model="m1",
        environment="prod",
        bundle=bundle,
        time=START + (day + 1) * DAY,
        window_start=START + day * DAY,
        window_end=START + (day + 1) * DAY,
        requests=1000,
        verdict=overall_verdict(findings),
        findings=findings,
    )


def policy(*, hysteresis: Hysteresis = AT_ONCE, cool_down_hours: float = 24, **checks: Response) -> ModelResponses:
    named = {name.replace("_", "-"): response for name, response in checks.items()}
    return ModelResponses(
        checks=CheckResponses.model_validate(named), hysteresis=hysteresis, cool_down_hours=cool_down_hours
    )


def after(reports: Sequence[ModelMonitorReport]) -> datetime:
    return max(one.time for one in reports)


def decided(
    *reports: ModelMonitorReport, by: ModelResponses, history: Sequence[ResponseDecision] = ()
) -> ResponseDecision | None:
    return decide(reports, by, after(reports), history)


def response(found: ResponseDecision | None) -> str:
    return found.response if found is not None else "none"


def test_an_alarm_needs_enough_windows() -> None:
    by = policy(hysteresis=Hysteresis(alarms=2, of=3), input_drift="retrain")
    drift = "input-drift"
    assert decided(report(0, drift), by=by) is None
    assert response(decided(report(0, drift), report(1, drift), by=by)) == "retrain"
    assert response(decided(report(0, drift), report(1), report(2, drift), by=by)) == "retrain"
    assert decided(report(0, drift), report(1), report(2), report(3, drift), by=by) is None
    assert decided(report(0, drift), report(1, drift), report(2), by=by) is None, "the newest window is not an alarm"


def test_missing_data_never_leads_to_a_response() -> None:
    by = policy(hysteresis=Hysteresis(alarms=2, of=3), errors="roll-back")
    windows = [report(0, "errors"), report(1, "errors", verdict="unknown"), report(2, "errors", verdict="unknown")]
    assert decided(*windows, by=by) is None
    assert decide([], by, START, []) is None


def test_two_reports_about_one_window_count_once_and_the_later_one_counts() -> None:
    by = policy(hysteresis=Hysteresis(alarms=2, of=3), accuracy="roll-back")
    first = report(0, "accuracy")
    again = first.model_copy(update={"time": first.time + timedelta(minutes=1)})
    assert decided(first, again, by=by) is None
    mended = again.model_copy(update={"findings": ()})
    assert decide([mended, first], policy(accuracy="roll-back"), mended.time, []) is None


@pytest.mark.parametrize("check", ["input-drift", "prediction-drift", "latency", "fairness", "estimated-accuracy"])
def test_one_unlabelled_check_never_rolls_back_alone(check: str) -> None:
    answers: dict[str, Any] = {check.replace("-", "_"): "roll-back"}
    found = decided(report(0, check), by=policy(**answers))
    assert found is not None
    assert found.response == "ask"
    assert found.reason == (
        f"not rolled back: neither labelled accuracy nor errors nor the estimate confirm it. {check}: {check} is off"
    )


@pytest.mark.parametrize("second", ["errors", "accuracy", "estimated-accuracy"])
def test_drift_rolls_back_with_a_second_key(second: str) -> None:
    found = decided(report(0, "input-drift", second), by=policy(input_drift="roll-back"))
    assert response(found) == "roll-back"


def test_lost_records_ask_and_are_no_second_key() -> None:
    assert response(decided(report(0, "traffic"), by=policy())) == "ask"
    found = decided(report(0, "traffic", "estimated-accuracy"), by=policy(estimated_accuracy="roll-back"))
    assert response(found) == "ask"


def test_a_rollback_names_the_bundle_the_checks_and_the_report() -> None:
    found = decide([report(0, "errors", "accuracy")], ModelResponses(hysteresis=AT_ONCE), START + DAY, [], report="r1")
    assert found is not None
    alarm = found.alarm()
    assert (alarm.response, alarm.bundle, alarm.checks, alarm.report) == (
        "roll-back",
        LIVE,
        ("errors", "accuracy"),
        "r1",
    )
    assert alarm.reason == "errors: errors is off; accuracy: accuracy is off"
    assert len(alarm.payload()) <= 10, "GitHub allows ten keys"


def test_a_rollback_needs_the_bundle() -> None:
    found = decided(report(0, "errors", bundle=None), by=ModelResponses(hysteresis=AT_ONCE))
    assert response(found) == "ask"


def test_windows_of_another_bundle_do_not_count() -> None:
    by = policy(hysteresis=Hysteresis(alarms=2, of=3), errors="roll-back")
    assert decided(report(0, "errors", bundle=OTHER), report(1, "errors"), by=by) is None


def test_a_second_rollback_within_the_cool_down_is_for_people() -> None:
    by = ModelResponses(hysteresis=AT_ONCE)
    first = decided(report(0, "errors", bundle=OTHER), by=by)
    assert first is not None
    again = decided(report(0, "errors", bundle=OTHER), by=by, history=[first])
    assert again is None, "the same rollback is not requested twice"
    second = decided(report(1, "errors"), by=by, history=[first.model_copy(update={"decided": START + DAY * 1.5})])
    assert response(second) == "ask"


def test_a_response_is_repeated_after_the_cool_down() -> None:
    by = policy(input_drift="retrain", cool_down_hours=36)
    first = decided(report(0, "input-drift"), by=by)
    assert first is not None
    assert decided(report(1, "input-drift"), by=by, history=[first]) is None
    assert response(decided(report(2, "input-drift"), by=by, history=[first])) == "retrain"


def test_a_question_about_one_check_does_not_silence_another() -> None:
    by = policy(latency="ask", fairness="ask")
    first = decided(report(0, "latency"), by=by)
    assert first is not None
    second = decide([report(0, "latency", "fairness")], by, START + DAY, [first])
    assert second is not None
    assert second.checks == ("fairness",)


def on_trial(day: int, *alarms: str) -> ModelMonitorReport:
    return report(day, "trial-accuracy", *alarms).model_copy(update={"trial": OTHER})


def test_the_accuracy_of_a_release_on_trial_asks_about_that_release() -> None:
    found = decided(on_trial(0), by=policy(hysteresis=Hysteresis(alarms=2, of=3)))
    assert found is not None
    assert (found.response, found.bundle, found.checks) == ("ask", OTHER, ("trial-accuracy",))
    assert found.alarm().bundle == OTHER


def test_a_release_on_trial_is_stopped_if_the_model_says_so_and_the_live_one_stays() -> None:
    found = decided(on_trial(0, "input-drift"), by=policy(trial_accuracy="roll-back", input_drift="roll-back"))
    assert found is not None
    assert (found.response, found.bundle) == ("roll-back", OTHER)


def test_a_release_on_trial_leads_to_one_response_and_then_to_those_of_the_live_one() -> None:
    by = policy(errors="ask")
    first = decided(on_trial(0), by=by)
    assert first is not None
    again = decided(on_trial(0), on_trial(1, "errors"), by=by, history=[first])
    assert again is not None
    assert (again.bundle, again.checks) == (LIVE, ("errors",))
    assert decided(on_trial(0), on_trial(1), by=by, history=[first]) is None


def test_the_accuracy_of_a_release_on_trial_is_no_second_key_against_the_live_one() -> None:
    found = decided(report(0, "trial-accuracy", "input-drift"), by=policy(input_drift="roll-back"))
    assert found is not None
    assert (found.response, found.checks) == ("ask", ("input-drift",))
    assert decided(on_trial(0), by=policy(trial_accuracy="none")) is None


@pytest.mark.parametrize("ahead", [timedelta(hours=14), 400 * DAY], ids=["time zone", "year"])
def test_a_run_whose_clock_was_ahead_neither_decides_nor_silences_those_after_it(ahead: timedelta) -> None:
    by = policy(errors="roll-back")
    fine, bad = report(9), report(0, "errors")
    fine = fine.model_copy(update={"window_end": bad.window_end + ahead, "time": bad.time + ahead})
    assert response(decide([bad, fine], by, bad.time, [])) == "roll-back"
    assert decide([report(0), fine.model_copy(update={"findings": bad.findings})], by, bad.time, []) is None

    first = decided(bad, by=by)
    assert first is not None
    future = first.model_copy(update={"decided": bad.time + ahead})
    assert response(decide([bad], by, bad.time, [future])) == "roll-back", "its cool-down would last for as long"
    assert decide([bad], by, bad.time, [first]) is None


def test_clocks_that_differ_by_minutes_change_nothing() -> None:
    by = policy(errors="roll-back")
    bad = report(0, "errors")
    assert response(decide([bad], by, bad.time - timedelta(minutes=4), [])) == "roll-back"
    first = decided(bad, by=by)
    assert first is not None
    assert decide([bad], by, bad.time - timedelta(minutes=4), [first]) is None


def test_the_reason_names_what_was_found_and_no_group_of_people() -> None:
    unfair = MonitorFinding(
        check="fairness", subject="ratio of accuracy by sex", verdict="alarm", reason="1.66", groups="secret: 0.5"
    )
    found = decided(report(0).model_copy(update={"findings": (unfair,)}), by=policy(fairness="ask"))
    assert found is not None
    assert found.reason == "fairness of ratio of accuracy by sex: 1.66"
    assert "secret" not in found.alarm().model_dump_json()


def test_a_killed_monitor_decides_the_same_again() -> None:
    by = ModelResponses(hysteresis=AT_ONCE)
    one = decide([report(0, "errors")], by, START + DAY, [])
    two = decide([report(0, "errors")], by, START + 2 * DAY, [])
    assert one is not None and two is not None
    assert one.id == two.id


reports_of_days = st.lists(
    st.builds(
        lambda day, checks, bundle: report(day, *checks, bundle=bundle),
        st.integers(0, 6),
        st.lists(st.sampled_from(MODEL_CHECKS), unique=True, max_size=4),
        st.sampled_from([LIVE, LIVE, OTHER, None]),
    ),
    min_size=1,
    max_size=8,
)
policies = st.builds(
    lambda responses, of, alarms, hours: ModelResponses(
        checks=CheckResponses.model_validate(dict(zip(MODEL_CHECKS, responses, strict=True))),
        hysteresis=Hysteresis(alarms=min(alarms, of), of=of),
        cool_down_hours=hours,
    ),
    st.lists(st.sampled_from(get_args(Response)), min_size=len(MODEL_CHECKS), max_size=len(MODEL_CHECKS)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 96),
)


@given(reports_of_days, policies, st.randoms())
def test_whatever_the_reports_and_the_policy(reports: list[Any], by: ModelResponses, random: Any) -> None:
    found = decided(*reports, by=by)
    shuffled = list(reports)
    random.shuffle(shuffled)
    assert decided(*shuffled, by=by) == found, "the order of reports does not matter"
    if found is None:
        return
    alarming: dict[CheckKind, set[datetime]] = {}
    for one in reports:
        for finding in one.findings:
            if one.bundle == found.bundle:
                alarming.setdefault(finding.check, set()).add(one.window_end)
    for check in found.checks:
        assert len(alarming[check]) >= by.hysteresis.alarms
        assert by.to(check) != "none"
    assert len(found.reason) <= LONGEST_REASON
    if found.response == "roll-back":
        assert found.bundle is not None
        assert alarming.keys() & {*MEASURED_HARM, ESTIMATED_HARM}, "drift alone never rolls back"
        assert by.to(found.checks[0]) == "roll-back"
    again = decided(*reports, by=by, history=[found]) if by.cool_down_hours > 0.01 else None
    assert again is None or (again.response, again.checks) != (found.response, found.checks)


@given(policies, st.integers(1, 30))
def test_a_storm_leads_to_one_response_of_each_kind(by: ModelResponses, windows: int) -> None:
    """Every check is an alarm every hour, for up to 30 hours and a cool-down that is longer."""
    calm = by.model_copy(update={"cool_down_hours": 1000.0})
    history: list[ResponseDecision] = []
    reports = []
    for hour in range(windows):
        one = report(0, *MODEL_CHECKS)
        shift = timedelta(hours=hour)
        reports.append(
            one.model_copy(update={name: getattr(one, name) + shift for name in ("time", "window_start", "window_end")})
        )
        found = decide(reports, calm, reports[-1].time, history)
        history += [found] if found is not None else []
    assert len([one for one in history if one.response == "roll-back"]) <= 1
    assert len([one for one in history if one.response == "retrain"]) <= 1
    asked = [check for one in history if one.response == "ask" for check in one.checks]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("value", [{"alarms": 3, "of": 2}, {"alarms": 0}])
def test_a_hysteresis_that_cannot_be_met_is_refused(value: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"alarms|greater"):
        Hysteresis.model_validate(value)
