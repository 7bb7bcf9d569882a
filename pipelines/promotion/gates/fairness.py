"""Gate: the metrics of protected groups differ by no more than `model.yaml` allows."""

from __future__ import annotations

from pipelines.declarations.evaluation import Part
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def fairness(facts: Facts) -> Verdict:
    """Refuse a bundle whose metric differs too much between groups, or whose groups are too small to tell."""
    if facts.policy is None:
        return inconclusive("fairness", "unknown", facts.missing("policy"), "train again from main")
    bounds = facts.policy.gates.fairness
    if not bounds:
        return passed("fairness", "no bound", "none declared", "model.yaml declares no fairness bound")
    if facts.evaluation is None:
        return inconclusive("fairness", "as declared", facts.missing("evaluation"), "train again")
    figures, limits, broken, undecided = [], [], [], []
    for bound in bounds:
        name = f"{bound.metric} by {bound.attribute}"
        limit = bound.maximum_ratio if bound.maximum_ratio is not None else bound.maximum_difference
        kind = "ratio" if bound.maximum_ratio is not None else "difference"
        limits.append(f"{kind} of {name} ≤ {limit:g}")
        groups = facts.evaluation.groups.get(bound.attribute)
        if groups is None:
            undecided.append(f"{bound.attribute} was not evaluated")
            continue
        small = {group: part.rows for group, part in groups.groups.items() if part.rows < bound.minimum_group_size}
        if small or len(groups.groups) < 2:
            named = ", ".join(f"{group} has {rows} rows" for group, rows in small.items()) or "there is only one group"
            undecided.append(
                f"{bound.attribute}: {named}, expected at least {bound.minimum_group_size} rows in each of two groups"
            )
            continue
        undefined = [group for group, part in groups.groups.items() if part.metrics.get(bound.metric) is None]
        value = (groups.ratio if kind == "ratio" else groups.difference).get(bound.metric)
        if value is None:
            which = f", because {bound.metric} is not for {', '.join(undefined)}" if undefined else ""
            undecided.append(f"the {kind} of {name} is not defined{which}")
            continue
        figures.append(f"{value:.3g}")
        assert limit is not None
        if value > limit:
            each = ", ".join(f"{group}: {format_metric(part, bound.metric)}" for group, part in groups.groups.items())
            broken.append(f"the {kind} of {name} is {value:.3g} ({each})")
        elif undefined:
            undecided.append(f"{bound.metric} of {bound.attribute} {', '.join(undefined)} is not defined")
    figure, threshold = "; ".join(figures) or "none", "; ".join(limits)
    if broken:
        return failed(
            "fairness", figure, threshold, "; ".join(broken), "find out why the groups differ, and do not release it"
        )
    if undecided:
        return inconclusive(
            "fairness", threshold, "; ".join(undecided), "collect more rows of the small groups", figure
        )
    return passed("fairness", figure, threshold, "every bound is kept")


def format_metric(part: Part, metric: str) -> str:
    """Format a metric of a group."""
    value = part.metrics.get(metric)
    return "undefined" if value is None else f"{value:.4g}"
