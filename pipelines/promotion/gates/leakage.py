"""Gate: the holdout shares no more rows with the training set than `model.yaml` allows."""

from __future__ import annotations

from pipelines.declarations.model import Leakage
from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def leakage(facts: Facts) -> Verdict:
    """Refuse a bundle whose holdout shares rows with its training set."""
    if facts.policy is None:
        return inconclusive("leakage", "unknown", facts.missing("policy"), "train again from main")
    bound = facts.policy.gates.leakage
    threshold = f"{bound.maximum_share:.4g} of the rows" if bound.maximum_share else "0 rows"
    if facts.evaluation is None:
        return inconclusive("leakage", threshold, facts.missing("evaluation"), "train again")
    holdout = facts.evaluation.holdout
    leaked = holdout.leaked_rows
    found = counted(leaked, "row")
    which = f"{leaked or 'none'} of {holdout.rows} holdout rows {'are' if leaked > 1 else 'is'}"
    if leaked > bound.maximum_share * holdout.rows:
        why = f"{which} also in the training set: features and target are equal"
        return failed("leakage", found, threshold, why, _fix(bound, leaked / holdout.rows))
    return passed("leakage", found, threshold, f"{which} among the {holdout.training_rows} training rows")


def _fix(bound: Leakage, share: float) -> str:
    if bound.maximum_share:
        return f"remove the duplicates from the data; found a share of {share:.2g}"
    return (
        "remove the duplicates from the data; if rows are equal by chance, allow a share of them in model.yaml: "
        f"gates.leakage.maximum_share; found {share:.2g}"
    )
