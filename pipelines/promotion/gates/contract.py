"""The data contract did not break for those who rely on it."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def contract(facts: Facts) -> Verdict:
    """Refuses a bundle whose data contract takes something from the consumers of the live one's."""
    threshold = "no breaking change"
    if facts.contract_breaks is None:
        return inconclusive("contract", threshold, facts.missing("contract_breaks"), "make both contracts readable")
    if facts.contract_breaks:
        count = len(facts.contract_breaks)
        why = "; ".join(facts.contract_breaks[:5])
        return failed(
            "contract", f"{count} breaking", threshold, why, "start a new dataset, or agree with its consumers"
        )
    return passed("contract", "0 breaking", threshold, "consumers of the live contract keep what they rely on")
