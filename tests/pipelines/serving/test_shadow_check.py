"""The canary check of a shadow step: it compares what both releases made of the same requests."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.declarations.shadow_traffic import SHADOW_PERCENT, ShadowPeers
from pipelines.serving import check
from pipelines.serving.check import FAILED, INCONCLUSIVE
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.serving.shadow_protocol import AnswerFigures
from pipelines.serving.shadow_receiver import ShadowReceiver
from pipelines.serving.shadow_sender import ShadowSender
from tests.pipelines.serving.bundles import DIGEST, NAME
from tests.pipelines.serving.test_check import GOLDEN, Canary, FakeTime, canary, now, url, variables

__all__ = ["canary", "now", "url"]  # fixtures

NONE = "http://127.0.0.1:1"


class Copies:
    """Metrics of a canary that takes copies between two looks.

    Attributes:
        errors: share of the copies that the canary fails.
        live_errors: share of the same requests that the live pods failed.
        shift: difference of the predictions.
        squeeze: by how much less the predictions of the canary vary, around the same mean.
        per_look: copies between two looks.
    """

    def __init__(self, pods: Canary, now: FakeTime) -> None:
        self.errors = self.live_errors = self.shift = 0.0
        self.squeeze = 1.0
        self.per_look = 20
        self._pods = pods
        self._taken = 0
        self._receiver = ShadowReceiver()
        self._receiver.expect_predictions(1e6, bin_edges(3.0, 2.0))
        self._metrics = RequestMetrics(NAME, DIGEST, "canary-1")
        self._metrics.add(self._receiver)
        live = RequestMetrics(NAME, DIGEST, "live-1")
        live.add(ShadowSender(ShadowPeers(beacon=NONE, ping=NONE, pong=NONE)))
        pods.instead["/live/metrics"] = (200, live.exposition()[1])
        self.show()
        now.on_sleep = self.more

    def show(self) -> None:
        self._pods.instead["/metrics"] = (200, self._metrics.exposition()[1])

    def more(self) -> None:
        for _ in range(self.per_look):
            self._taken += 1
            value, position = float(self._taken % 7), self._taken % 100

            def figures(errors: float, value: float, position: int = position) -> AnswerFigures:
                fails = position < 100 * errors
                return AnswerFigures(500 if fails else 200, 0.002, None if fails else value)

            ours = 3 + (value - 3) / self.squeeze + self.shift
            self._receiver.compared(figures(self.errors, ours), figures(self.live_errors, value))
        self.show()


@pytest.fixture
def copies(canary: Canary, now: FakeTime, monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setattr(check, "read_golden", lambda *_: GOLDEN)
    return Copies(canary, now)


ASKED = ["--model", NAME, "--live", "pong", "--bundle", DIGEST]


def run(url: str, now: FakeTime, fail_if: str = "failed", percent: str = "10", **more: Any) -> int:
    given = {**variables(fail_if, url, live=f"{url}/live", **more), SHADOW_PERCENT: percent, "HOST": "127.0.0.1"}
    return check.main(ASKED, given, now.clock)


def test_a_canary_that_fails_copies_is_stopped_before_it_has_callers(
    url: str, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.errors = 0.3
    assert run(url, now, seconds=900) == FAILED
    assert now.at <= 10
    said = capsys.readouterr().out
    assert "the live pods copy 10 % of the requests to http://" in said
    assert "failed: http://" in said
    assert " copies of their requests: errors: canary " in said


def test_a_canary_that_predicts_something_else_is_stopped(url: str, now: FakeTime, copies: Copies) -> None:
    copies.shift = 9.0
    assert run(url, now, seconds=900) == FAILED


def test_a_canary_that_predicts_the_mean_for_every_copy_is_stopped(
    url: str, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.squeeze = 1000.0
    assert run(url, now, seconds=900) == FAILED
    assert "copies of their requests: distribution: canary differs by " in capsys.readouterr().out


def test_requests_that_both_releases_fail_do_not_stop_a_canary(
    url: str, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.errors = copies.live_errors = 0.4
    copies.per_look = 100
    assert run(url, now, "inconclusive", seconds=60) == 0
    assert "is not worse than the live pods after " in capsys.readouterr().out


def test_a_good_canary_passes_once_there_were_enough_copies(
    url: str, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, now, "inconclusive", seconds=4, wait_seconds=600) == 0
    assert 4 < now.at < 60
    assert "is not worse than the live pods after 120 copies of their requests" in capsys.readouterr().out


def test_without_copies_there_is_no_verdict(
    url: str, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.per_look = 0
    assert run(url, now, seconds=4) == 0
    assert run(url, now, "inconclusive", seconds=4) == INCONCLUSIVE
    assert "inconclusive: no verdict yet: no copies arrived" in capsys.readouterr().out


def test_what_the_canary_took_before_the_check_does_not_count(url: str, now: FakeTime, copies: Copies) -> None:
    copies.errors = 1.0
    copies.more()
    copies.per_look = 0
    assert run(url, now, seconds=4) == 0


def test_live_pods_that_cannot_copy_are_no_reason_to_wait(
    url: str, canary: Canary, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    canary.instead["/live/metrics"] = (200, RequestMetrics(NAME, DIGEST, "live-1").exposition()[1])
    assert run(url, now, "inconclusive", seconds=900, wait_seconds=900) == 0
    assert now.at == 0
    assert "the live pods were started before the model declared `shadow`" in capsys.readouterr().out


def test_a_canary_of_an_image_that_knows_no_copies_has_no_verdict(
    url: str, canary: Canary, now: FakeTime, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.show = lambda: None  # type: ignore[method-assign]
    canary.instead["/metrics"] = (200, RequestMetrics(NAME, DIGEST, "canary-1").exposition()[1])
    assert run(url, now, "inconclusive", seconds=4) == INCONCLUSIVE
    assert "(metrics of a pod: expected counts of copied requests, found none)" in capsys.readouterr().out


@pytest.mark.parametrize("percent", ["x", "51", "-1", "{{args.shadow-percent}}"])
def test_a_share_that_is_not_valid_has_no_verdict(
    percent: str, url: str, now: FakeTime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, now, percent=percent) == 0
    assert run(url, now, "inconclusive", percent=percent) == INCONCLUSIVE
    assert f"{SHADOW_PERCENT}: expected a whole number up to 50, found {percent!r}" in capsys.readouterr().out


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what the beacon answers while the check looks."""
    answers: list[Any] = []
    original = check.lit_beacon

    def lit(target: Any, host: str, port: int) -> Any:
        lamp = original(target, host, port)

        class Asked:
            def __enter__(self) -> None:
                answers.append(json.load(urlopen(f"http://127.0.0.1:{lamp.__enter__()}/")))

            def __exit__(self, *failure: Any) -> None:
                lamp.__exit__(*failure)

        return Asked()

    monkeypatch.setattr(check, "lit_beacon", lit)
    return answers


def test_live_pods_are_told_the_other_service(url: str, now: FakeTime, copies: Copies, told: list[Any]) -> None:
    run(url, now, seconds=2, percent="25")
    assert told == [{"canary": "ping", "percent": 25}]


def test_a_traffic_step_tells_nobody(url: str, now: FakeTime, copies: Copies, told: list[Any]) -> None:
    run(url, now, seconds=2, percent="0")
    assert told == []
