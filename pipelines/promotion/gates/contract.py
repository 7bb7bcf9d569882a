"""Gate: the candidate's data contract is compatible with the live one."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def contract(facts: Facts) -> Verdict:
    """Refuse a bundle whose data contract has breaking changes."""
    threshold = "no breaking change"
    if facts.contract_breaks is None:
        fix = "fix what the reason names, then run the gates again"
        return inconclusive("contract", threshold, facts.missing("contract_breaks"), fix)
    if facts.contract_breaks:
        count = len(facts.contract_breaks)
        why = "; ".join(facts.contract_breaks[:5])
        return failed("contract", f"{count} breaking", threshold, why, "add a new dataset, or agree with the consumers")
    return passed("contract", "0 breaking", threshold, "compatible with the live contract")
