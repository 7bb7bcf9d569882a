"""Comparison of runs: what differs, the order, what may be chance, and that no text of a record acts on a reader."""

from __future__ import annotations

import json
import re

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Estimate
from pipelines.declarations.run_facts import is_lower_better
from pipelines.training_runs.recorded_runs import RecordedRun, find_runs
from pipelines.training_runs.run_comparison import compare_runs, comparison_json
from pipelines.training_runs.run_lines import comparison_lines, list_lines, run_lines
from pipelines.training_runs.run_page import MOST_ROWS, render_comparison
from tests.pipelines.training_runs.recorded import BEGIN, digest, make_facts, make_run
from tests.signing_environments import MODEL

THREE = [
    make_run("newest", make_facts(50.5, parameters={"alpha": 0.1, "tree": {"depth": 3}}), minutes=3),
    make_run("middle", make_facts(50.0, parameters={"alpha": 10.0}), minutes=2),
    make_run("oldest", make_facts(60.0), minutes=1),
]


def test_the_best_run_is_first_and_what_differs_is_named_before_what_is_the_same() -> None:
    found = compare_runs(MODEL, THREE, "rmse")
    assert [each.run.id for each in found.runs] == ["middle", "newest", "oldest"]
    assert found.differing == ("alpha", "tree.depth")
    assert found.same["seed"] == "7" and "alpha" not in found.same
    assert found.metrics == ("rmse", "r2")
    lines = comparison_lines(found)
    assert lines[0] == f"3 runs of {MODEL}, rmse: lower is better"
    (depth,) = [line for line in lines if line.startswith("tree.depth")]
    assert depth.split() == ["tree.depth", "none", "3", "none"]
    assert next(at for at, line in enumerate(lines) if line.startswith("alpha")) < next(
        at for at, line in enumerate(lines) if line.startswith("rmse")
    )


def test_a_higher_metric_is_better_unless_it_is_an_error_or_a_difference() -> None:
    assert [each.run.id for each in compare_runs(MODEL, THREE, "slice/young/rmse").runs] == [
        "newest",
        "middle",
        "oldest",
    ]
    lower = ["rmse", "mae", "slice/young/rmse", "difference/sex/r2"]
    assert [is_lower_better(name, "regression") for name in [*lower, "r2", "ratio/sex/rmse"]] == [True] * 4 + [
        False
    ] * 2
    best = make_run("best", make_facts(metrics={"r2": Estimate(value=0.9, low=None, high=None)}))
    assert compare_runs(MODEL, [*THREE, best], "r2").runs[0].run.id == "best"


def test_a_run_whose_interval_includes_the_best_value_is_marked() -> None:
    found = compare_runs(MODEL, THREE, "rmse")
    assert [found.may_be_chance(each) for each in found.runs[1:]] == [True, False]
    marked = [line for line in comparison_lines(found) if line.startswith("rmse")]
    assert marked == ["rmse              50 (48 to 52)        50.5 (48.5 to 52.5) ~  60 (58 to 62)"]


def test_a_run_without_the_metric_is_last_and_one_without_facts_is_left_out() -> None:
    unknown = make_run("undefined", make_facts(None))
    broken = RecordedRun("broken", "dev", BEGIN, None, None, "its record is not one of a training run")
    found = compare_runs(MODEL, [unknown, broken, *THREE], "rmse")
    assert found.runs[-1].run.id == "undefined"
    assert "left out: broken, because its record is not one of a training run" in comparison_lines(found)
    assert comparison_json(found)["left_out"][0]["run"] == "broken"
    assert b"broken" in render_comparison(found)
    assert comparison_lines(compare_runs(MODEL, [broken], ""))[0] == f"no runs of {MODEL} to compare"


def test_other_holdouts_are_pointed_out() -> None:
    other = make_run("other", make_facts(40.0, holdout=digest("other keys")))
    assert compare_runs(MODEL, THREE, "rmse").has_one_holdout
    found = compare_runs(MODEL, [*THREE, other], "rmse")
    assert not found.has_one_holdout
    assert any(line.startswith("Their holdouts differ") for line in comparison_lines(found))
    assert b"holdouts of these runs differ" in render_comparison(found)


@pytest.mark.parametrize(("sort", "metrics"), [("rmsle", ()), ("rmse", ("accuracy",))])
def test_a_metric_that_no_run_has_is_an_error_that_lists_the_metrics(sort: str, metrics: tuple[str, ...]) -> None:
    with pytest.raises(MlopsError, match="expected one of rmse, r2, slice/young/rmse"):
        compare_runs(MODEL, THREE, sort, metrics)


def test_the_order_of_time_can_be_kept() -> None:
    found = compare_runs(MODEL, THREE, "rmse", by_time=True)
    assert [each.run.id for each in found.runs] == ["newest", "middle", "oldest"]
    ranked = compare_runs(MODEL, THREE, "rmse")
    assert found.best == ranked.best
    assert found.ranked[0].run.id == ranked.runs[0].run.id != "newest"
    assert [found.may_be_chance(each) for each in found.ranked] == [ranked.may_be_chance(each) for each in ranked.runs]
    page = render_comparison(found)
    assert b"in the order of time, the newest first; a lower rmse is better" in page
    assert f">{ranked.runs[0].run.id}<".encode() in page


def test_runs_are_found_by_the_beginning_of_their_ids() -> None:
    more = [*THREE, make_run("old"), make_run("newest", environment=None, bundle=None)]
    assert [run.id for run in find_runs(more, ["mid", "old", "middle"], MODEL)] == ["middle", "old"]
    with pytest.raises(MlopsError, match=r"expected one, found newest \(dev\), newest \(experiment\)"):
        find_runs(more, ["newest"], MODEL)
    with pytest.raises(MlopsError, match="found none"):
        find_runs(more, ["none-such"], MODEL)


def test_a_parameter_named_like_a_fact_hides_no_fact() -> None:
    found = compare_runs(MODEL, [make_run("one", make_facts(parameters={"seed": 1})), *THREE], "rmse")
    assert found.same["seed"] == "7"
    assert "parameters.seed" in found.differing


HOSTILE = {"a\x1b[2J<script>alert(1)</script>": "\u202e::add-mask::x\n##[add-mask]y", "::set-output": "<b>"}


def test_a_record_acts_neither_on_a_terminal_nor_on_a_page_nor_on_a_runner() -> None:
    hostile = [make_run("one", make_facts(parameters=HOSTILE)), make_run("two")]
    found = compare_runs(MODEL, hostile, "rmse")
    many = compare_runs(MODEL, [*hostile, *THREE], "rmse")
    texts = [*comparison_lines(found), *comparison_lines(many), *run_lines(hostile[0]), *list_lines(hostile, "rmse")]
    for line in texts:
        assert "\x1b" not in line and "\u202e" not in line and "\n" not in line and "##[" not in line
        assert not line.lstrip().startswith("::")
    for page in (render_comparison(found).decode(), render_comparison(many).decode()):
        assert "<script" not in page and "<b>" not in page and "\x1b" not in page and "\u202e" not in page
    assert json.loads(json.dumps(comparison_json(found)))["runs"][0]["facts"]["parameters"] == HOSTILE


def test_the_page_draws_a_line_for_each_run_and_an_axis_for_what_differs() -> None:
    page = render_comparison(compare_runs(MODEL, THREE, "rmse")).decode()
    paths = re.findall(r'<path class="([^"]+)" d="([^"]+)"><title>([^<]+)', page)
    assert [(kind, title) for kind, _, title in paths] == [
        ("run", "newest: rmse 50.5"),
        ("run", "oldest: rmse 60"),
        ("run best", "middle: rmse 50"),
    ]
    assert "alpha (log)" in page and "tree.depth" in page
    assert page.count("<circle") == len(THREE)
    assert render_comparison(compare_runs(MODEL, THREE, "rmse")).decode() == page


def test_a_run_without_a_parameter_has_a_gap_in_its_line() -> None:
    page = render_comparison(compare_runs(MODEL, THREE, "rmse")).decode()
    drawn = {title: path for path, title in re.findall(r'd="([^"]+)"><title>(\w+)', page)}
    assert drawn["newest"].count("M") == 1 and drawn["middle"].count("M") == 2


def test_a_page_of_many_runs_lists_the_best_and_draws_all() -> None:
    many = [make_run(f"run-{n:03}", make_facts(40.0 + n, parameters={"alpha": n}), minutes=n) for n in range(150)]
    page = render_comparison(compare_runs(MODEL, many, "rmse")).decode()
    assert page.count("<path ") == page.count("<circle ") == 150
    assert f"{150 - MOST_ROWS} runs with a worse rmse not shown" in page
    assert "run-099</code>" in page and "run-100</code>" not in page


@pytest.mark.parametrize("value", [0.0, -5.0, 1e308, 1e-308])
def test_extreme_figures_are_drawn(value: float) -> None:
    runs = [make_run("one", make_facts(metrics={"rmse": Estimate(value=value, low=value, high=value)})), THREE[0]]
    page = render_comparison(compare_runs(MODEL, runs, "rmse")).decode()
    assert "nan" not in page and "inf" not in page.replace("info", "")
