"""Gate: no row of the holdout is in the training set."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def leakage(facts: Facts) -> Verdict:
    """Refuse a bundle whose holdout shares rows with its training set."""
    threshold = "0 rows"
    if facts.evaluation is None:
        return inconclusive("leakage", threshold, facts.missing("evaluation"), "train again")
    holdout = facts.evaluation.holdout
    if holdout.leaked_rows > 0:
        why = f"{holdout.leaked_rows} of {holdout.rows} holdout rows are also in the training set"
        return failed(
            "leakage", counted(holdout.leaked_rows, "row"), threshold, why, "remove the duplicates from the data"
        )
    why = f"none of {holdout.rows} holdout rows is among the {holdout.training_rows} training rows"
    return passed("leakage", "0 rows", threshold, why)
