"""The metrics keep the bounds that were committed before they were measured."""

from __future__ import annotations

from pipelines.declarations.model import Threshold
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def thresholds(facts: Facts) -> Verdict:
    """Refuses a bundle that breaks a bound, and bounds that are not those it was evaluated under."""
    policy, evaluation = facts.policy, facts.evaluation
    if policy is None:
        return inconclusive("thresholds", "unknown", facts.missing("policy"), "train again from main")
    bounds = "; ".join(written(bound) for bound in policy.gates.thresholds)
    if policy.digest != policy.evaluated:
        why = "the bounds in the commit it was made from are not those that its signed evaluation names"
        return failed("thresholds", "other bounds", bounds, why, "train again, after the bounds are on main")
    if evaluation is None:
        return inconclusive("thresholds", bounds, facts.missing("evaluation"), "train again")
    figures, broken, undefined = [], [], []
    for bound in policy.gates.thresholds:
        estimate = evaluation.metrics.get(bound.metric)
        value = estimate.value if estimate is not None else None
        if value is None:
            undefined.append(bound.metric)
            continue
        figures.append(f"{bound.metric} {value:.4g}")
        too_low = bound.minimum is not None and value < bound.minimum
        too_high = bound.maximum is not None and value > bound.maximum
        if too_low or too_high:
            broken.append(f"{bound.metric} is {value:.4g}, the bound is {written(bound)}")
    found = "; ".join(figures) or "none"
    if broken:
        return failed("thresholds", found, bounds, ", ".join(broken), "improve the model, or decide on another bound")
    if undefined:
        why = f"{', '.join(undefined)} has no value on this holdout"
        return inconclusive("thresholds", bounds, why, "bound a metric that the holdout can measure", found)
    rows = evaluation.holdout.rows
    return passed("thresholds", found, bounds, f"on {rows} rows kept from training, by bounds committed before")


def written(bound: Threshold) -> str:
    """A bound as people write it: `rmse ≤ 65`."""
    low = f"{bound.minimum:g} ≤ " if bound.minimum is not None else ""
    high = f" ≤ {bound.maximum:g}" if bound.maximum is not None else ""
    return f"{low}{bound.metric}{high}" if high else f"{bound.metric} ≥ {bound.minimum:g}"
