"""No row that the bundle was judged by was in what it learned from."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def leakage(facts: Facts) -> Verdict:
    """Refuses a bundle whose holdout holds rows of the training set."""
    threshold = "0 rows"
    if facts.evaluation is None:
        return inconclusive("leakage", threshold, facts.missing("evaluation"), "train again")
    holdout = facts.evaluation.holdout
    if holdout.leaked_rows > 0:
        why = f"{holdout.leaked_rows} of the {holdout.rows} rows it was judged by are in the training set as well"
        return failed("leakage", f"{holdout.leaked_rows} rows", threshold, why, "remove the duplicates from the data")
    why = f"{holdout.rows} rows were kept from the {holdout.training_rows} it learned from"
    return passed("leakage", "0 rows", threshold, why)
