"""Gate: the candidate is not worse than the live bundle on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import METRICS
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed
from pipelines.training.metrics import measure, replicate

FEWEST_ROWS = 30
"""Rows that both holdouts must share: the percentile bootstrap needs about that many."""


@dataclass(frozen=True)
class Comparison:
    """Two models compared on the rows that are in both holdouts.

    Attributes:
        rows: number of rows.
        champion: metric of the champion.
        candidate: metric of the candidate.
        regression: how much worse the candidate is, as a fraction of the champion's value; negative if it is better.
        low: lower end of the bootstrap interval of that fraction, paired by row; NaN if it is undefined.
        high: upper end of that interval.
    """

    rows: int
    champion: float
    candidate: float
    regression: float
    low: float
    high: float


def compare(champion: Evaluation, candidate: Evaluation, metric: str, confidence: float) -> Comparison:
    """Compare two evaluations on the rows that their holdouts share, with a paired percentile bootstrap.

    The seed is fixed: the same two bundles always get the same verdict.

    Args:
        champion: the evaluation of the live bundle.
        candidate: the evaluation of the candidate, for the same task.
        metric: the metric to compare.
        confidence: confidence level of the interval, between 0 and 1.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    at = {key: index for index, key in enumerate(champion.sample.keys)}
    pairs = [(at[key], index) for index, key in enumerate(candidate.sample.keys) if key in at]
    old_rows, new_rows = [old for old, _ in pairs], [new for _, new in pairs]
    task = candidate.task
    truth = np.asarray(candidate.sample.truth, dtype=np.float64)[new_rows]
    old = np.asarray(champion.sample.predicted, dtype=np.float64)[old_rows]
    new = np.asarray(candidate.sample.predicted, dtype=np.float64)[new_rows]
    measured = measure(task, truth, old) if len(pairs) >= FEWEST_ROWS else {}
    if metric not in measured:
        nothing = float("nan")
        return Comparison(len(pairs), nothing, nothing, nothing, nothing, nothing)
    sign = 1.0 if METRICS[task][metric] == "lower" else -1.0
    old_value, new_value = float(measured[metric][0]), float(measure(task, truth, new)[metric][0])
    olds, news = replicate(task, truth, old, seed=0)[metric], replicate(task, truth, new, seed=0)[metric]
    with np.errstate(divide="ignore", invalid="ignore"):
        worse = sign * (news - olds) / np.abs(olds)
        regression = float(sign * np.float64(new_value - old_value) / np.abs(old_value))
    # Equal values are not a regression, even if both are zero.
    worse = np.where((news == olds), 0.0, worse)
    tail = (1 - confidence) / 2 * 100
    defined = worse[~np.isnan(worse)]
    low, high = np.percentile(defined, [tail, 100 - tail], method="inverted_cdf") if len(defined) else (np.nan, np.nan)
    return Comparison(
        len(pairs), old_value, new_value, 0.0 if new_value == old_value else regression, float(low), float(high)
    )


def champion(facts: Facts) -> Verdict:
    """Refuse a candidate that is worse than the live bundle by more than `model.yaml` allows."""
    if facts.policy is None:
        return inconclusive("champion", "unknown", facts.missing("policy"), "train again from main")
    rule = facts.policy.gates.champion
    threshold = f"{rule.metric} at most {rule.maximum_regression:.1%} worse"
    if facts.evaluation is None:
        return inconclusive("champion", threshold, facts.missing("evaluation"), "train again")
    if facts.live is None and "live" in facts.unknown:
        return inconclusive("champion", threshold, facts.missing("live"), "make the environment's registry readable")
    if facts.live is None:
        return passed("champion", "first release", threshold, "no bundle is live")
    if facts.champion is None:
        fix = "find out why the live bundle's evaluation cannot be read"
        return inconclusive("champion", threshold, facts.missing("champion"), fix)
    if facts.champion.task != facts.evaluation.task or facts.champion.classes != facts.evaluation.classes:
        why = "the task or the classes differ from the live bundle's"
        return failed("champion", "another task", threshold, why, "release it as a new model")
    found = compare(facts.champion, facts.evaluation, rule.metric, rule.confidence)
    if found.rows < FEWEST_ROWS:
        why = f"the holdouts share {found.rows} rows; expected at least {FEWEST_ROWS}"
        return inconclusive("champion", threshold, why, "train the live model on the current data first")
    if np.isnan(found.high):
        why = f"{rule.metric} is not defined on the {found.rows} rows that the holdouts share"
        return inconclusive("champion", threshold, why, "compare by a metric that is defined on these rows")
    figure = f"{found.regression:+.1%} [{found.low:+.1%}, {found.high:+.1%}]"
    values = f"{rule.metric} {found.candidate:.4g}, live {found.champion:.4g}, on the same {found.rows} rows"
    if found.high <= rule.maximum_regression:
        return passed("champion", figure, threshold, values)
    if found.low > rule.maximum_regression:
        return failed("champion", figure, threshold, f"{values}: it is worse", "improve the model")
    why = f"{values}: the interval crosses the bound, so it may be worse"
    if found.regression > rule.maximum_regression:
        return failed("champion", figure, threshold, why, "improve the model")
    return inconclusive("champion", threshold, why, "collect more data to narrow the interval", figure)
