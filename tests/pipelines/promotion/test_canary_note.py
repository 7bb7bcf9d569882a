"""What a release's pull request says about the canary checks to come."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.declarations.model import Serving
from pipelines.promotion.comments.canary_note import LiveTraffic, canary_note, duration
from pipelines.serving.canary_analysis import requests_needed


def serving(**more: Any) -> Serving:
    steps = [{"weight": 10, "pause_seconds": 300}, {"weight": 50, "pause_seconds": 300}]
    return Serving.model_validate({"resources": {"cpu": "1", "memory": "1Gi"}, "rollout": steps, **more}, strict=False)


def test_each_step_says_how_many_requests_and_how_much_time_it_needs() -> None:
    traffic = LiveTraffic(86_400 * 2, 172, 86_400)
    base = 172.5 / (86_400 * 2 + 1)
    first, second = (requests_needed(weight, base, 0.1) for weight in (0.1, 0.5))
    (text,) = canary_note(serving(), "prod", True, traffic)[2:3]
    assert text == (
        "An error rate that is 10 percentage points higher is found in 80 % of cases: "
        f"at 10 % about {first:,} requests, {duration(first / 2)}; "
        f"at 50 % about {second:,} requests, {duration(second / 2)}. "
        "The time is at the rate of the last day, 2 requests per second. Without a verdict, prod pauses the release. "
        "Latency, and the mean and the distribution of predictions, are compared as well."
    )


@pytest.mark.parametrize("traffic", [None, LiveTraffic(0, 0, 86_400)])
def test_an_unknown_rate_is_not_a_time(traffic: LiveTraffic | None) -> None:
    text = "\n".join(canary_note(serving(), "dev", False, traffic))
    assert "The present rate of requests is not known." in text
    assert "Without a verdict, the release goes on: in dev, correct golden requests are enough." in text
    assert " min" not in text


def test_a_smaller_increase_to_find_needs_more_requests() -> None:
    def numbers(**canary: Any) -> str:
        return canary_note(serving(canary=canary), "dev", True, None)[2]

    assert numbers(error_increase=0.02) != numbers()
    assert "2 percentage points higher" in numbers(error_increase=0.02)


def test_a_model_without_traffic_steps_has_no_canary() -> None:
    assert canary_note(serving(rollout=[]), "dev", True, None) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (90, "90 s"), (150, "2 min"), (7_200, "2 h"), (172_800, "2 days"), (1e9, "11,574 days")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_shadow_step_says_how_many_copies_it_needs() -> None:
    traffic = LiveTraffic(86_400 * 2, 172, 86_400)
    both = requests_needed(0.5, 172.5 / (86_400 * 2 + 1), 0.1)
    copies = -(-both // 2)
    declared = serving(shadow={"percent": 20, "pause_seconds": 300})
    (text,) = canary_note(declared, "prod", True, traffic)[2:3]
    assert f"before any traffic, with 20 % copied, about {copies:,} copies, {duration(copies / 2 * 5)}; at 10 %" in text


def test_the_checks_of_a_rollout_last_as_long_as_its_steps() -> None:
    assert serving().check_seconds == (300, 300)
    assert serving(shadow={"pause_seconds": 60}).check_seconds == (60, 300, 300)


def test_a_shadow_step_is_followed_by_traffic_steps() -> None:
    with pytest.raises(ValueError, match="traffic steps in rollout after shadow; found none"):
        serving(shadow={"pause_seconds": 60}, rollout=[])
