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
        which = f"{holdout.leaked_rows} of {holdout.rows} holdout rows {_verb(holdout.leaked_rows)}"
        why = f"{which} also in the training set: features and target are equal"
        return failed("leakage", found, threshold, why, _fix(bound, holdout.leaked_rows / holdout.rows))
    which = f"{holdout.leaked_rows} of {holdout.rows} holdout rows {_verb(holdout.leaked_rows)}"
    if not holdout.leaked_rows:
        which = f"none of {holdout.rows} holdout rows is"
    why = f"{which} among the {holdout.training_rows} training rows"
    return passed("leakage", found, threshold, why)


def _verb(rows: int) -> str:
    return "is" if rows == 1 else "are"


def _fix(bound: Leakage, share: float) -> str:
    if bound.maximum_share:
        return f"remove the duplicates from the data; found a share of {share:.2g}"
    return (
        "remove the duplicates from the data; if rows are equal by chance, allow a share of them in model.yaml: "
        f"gates.leakage.maximum_share; found {share:.2g}"
    )
