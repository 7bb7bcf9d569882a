"""The simulations that bound the error rates: seeded, and strict about their bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tools.simulate import __main__ as command
from tools.simulate.__main__ import SIMULATIONS
from tools.simulate.data_monitors import daily_series, levels, normal, outlying, window_verdicts
from tools.simulate.rates import MeasuredRate


def test_a_rate_keeps_its_bound_only_with_its_whole_interval() -> None:
    assert not MeasuredRate("few", 20, 0, at_most=0.065).met
    assert MeasuredRate("many", 1_000, 50, at_most=0.066).met
    assert not MeasuredRate("many", 1_000, 70, at_most=0.066).met
    assert not MeasuredRate("power", 1_000, 955, at_least=0.95).met
    assert MeasuredRate("power", 1_000, 970, at_least=0.95).met


def test_the_interval_is_exact() -> None:
    low, high = MeasuredRate("none", 1_000, 0).interval
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 1_000))


def test_a_run_has_the_same_result_again() -> None:
    name = next(iter(SIMULATIONS))
    assert command.count_events(name, 3, 5) == sum(command.count_events(name, run, run + 1) for run in (3, 4))


def test_the_command_fails_if_a_rate_leaves_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "simulations.json")
    name = "model drift: mean + 0.2 sd found in 1,000 rows"
    assert command.main(["--only", name, "--share", "0.002", "--jobs", "1"]) == 1
    (written,) = json.loads((tmp_path / "simulations.json").read_text())
    assert (written["name"], written["runs"], written["met"]) == (name, 2, False)
    assert written["bound"] == {"at_most": None, "at_least": 0.95}


def test_the_drawn_data_is_what_the_names_say() -> None:
    rng = np.random.default_rng(0)
    assert outlying(rng, 20_000).mean() == pytest.approx(0.15, abs=0.03)
    counts = levels(rng, 20_000).value_counts().to_pylist()
    assert len(counts) == 10
    series = daily_series(rng, 70)
    assert np.mean(series[5::7]) < 0.5 * np.mean(series[2::7])
    assert len(window_verdicts(rng, 200, normal, normal)) == 20


@pytest.mark.slow
def test_the_naive_rule_alarms_in_most_windows_without_a_change() -> None:
    """The reason for the control of the false discovery rate."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(30):
        pairs = [(rng.normal(size=2_000), rng.normal(size=500)) for _ in range(20)]
        alarms += any(stats.ks_2samp(*pair, method="asymp").pvalue < 0.05 for pair in pairs)
    assert alarms > 12
