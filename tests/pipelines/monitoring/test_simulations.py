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
from tools.simulate.rates import MeasuredMean, MeasuredRate, Simulation


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
    alone = [command.sum_runs(name, run, run + 1)[0] for run in (3, 4)]
    assert command.sum_runs(name, 3, 5)[0] == sum(alone)


def test_a_mean_keeps_its_bound_only_with_its_whole_interval() -> None:
    simulation = Simulation(lambda rng: 0.0, at_most=0.0103, is_mean=True)
    few, many = ([0.01 + 0.005 * (-1) ** run for run in range(runs)] for runs in (100, 10_000))
    measured = [
        simulation.measured("error", len(values), sum(values), sum(value**2 for value in values))
        for values in (few, many)
    ]
    assert [each.met for each in measured] == [False, True]
    assert all(isinstance(each, MeasuredMean) for each in measured)
    expected = stats.norm.interval(0.95, loc=0.01, scale=np.std(many, ddof=1) / 100)
    assert measured[1].interval == pytest.approx(expected)
    assert measured[1].row().count(" pp") == 4


def test_every_simulation_with_a_bound_has_at_least_1000_runs() -> None:
    bounded = [each for each in SIMULATIONS.values() if each.at_most is not None or each.at_least is not None]
    assert bounded
    assert min(each.runs for each in bounded) >= 1_000


def test_naive_rules_are_compared_with_what_is_simulated() -> None:
    naive = {name for each in SIMULATIONS.values() for name in each.naive}
    assert naive == {name for name in SIMULATIONS if name.startswith("naive rule: ")}


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
