"""Gate: the metrics are within the bounds committed before the evaluation."""

from __future__ import annotations

from pipelines.declarations.model import Threshold
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def thresholds(facts: Facts) -> Verdict:
    """Refuse a bundle that breaks a bound, or that was evaluated with other bounds."""
    policy, evaluation = facts.policy, facts.evaluation
    if policy is None:
        return inconclusive("thresholds", "unknown", facts.missing("policy"), "train again from main")
    bounds = "; ".join(format_bound(bound) for bound in policy.gates.thresholds)
    if policy.digest != policy.evaluated:
        why = "the bounds in the bundle's commit differ from those in its signed evaluation"
        return failed("thresholds", "other bounds", bounds, why, "merge the bounds, then train again")
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
            broken.append(f"{bound.metric} is {value:.4g}, expected {format_bound(bound)}")
    found = "; ".join(figures) or "none"
    if broken:
        return failed(
            "thresholds", found, bounds, "; ".join(broken), "improve the model, or change the bound in a pull request"
        )
    if undefined:
        why = f"no value on this holdout: {', '.join(undefined)}"
        return inconclusive("thresholds", bounds, why, "bound a metric that the holdout can measure", found)
    rows = evaluation.holdout.rows
    return passed("thresholds", found, bounds, f"measured on {rows} holdout rows; the bounds were committed first")


def format_bound(bound: Threshold) -> str:
    """Format a bound: `rmse ≤ 65`."""
    low = f"{bound.minimum:g} ≤ " if bound.minimum is not None else ""
    high = f" ≤ {bound.maximum:g}" if bound.maximum is not None else ""
    return f"{low}{bound.metric}{high}" if high else f"{bound.metric} ≥ {bound.minimum:g}"
