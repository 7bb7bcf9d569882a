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
    found = counted(holdout.leaked_rows, "row")
    if holdout.leaked_rows > bound.maximum_share * holdout.rows:
        why = f"{holdout.leaked_rows} of {holdout.rows} holdout rows are also in the training set"
        return failed("leakage", found, threshold, why, _fix(bound))
    which = f"{holdout.leaked_rows} of {holdout.rows} holdout rows are" if holdout.leaked_rows else ""
    why = f"{which or f'none of {holdout.rows} holdout rows is'} among the {holdout.training_rows} training rows"
    return passed("leakage", found, threshold, why)


def _fix(bound: Leakage) -> str:
    if bound.maximum_share:
        return "remove the duplicates from the data"
    return "remove the duplicates from the data; if rows are equal by chance, bound their share in gates.leakage"
