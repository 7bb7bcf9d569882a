"""Gate: provenance and evaluation are signed by the environment that trains."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed

KINDS = ("provenance", "evaluation")


def signature(facts: Facts) -> Verdict:
    """Refuse a bundle whose provenance or evaluation has no valid signature of the training environment."""
    threshold = " and ".join(KINDS)
    fix = "train again: the training job signs what it registers"
    if "signatures" in facts.unknown:
        return inconclusive("signature", threshold, facts.missing("signatures"), "make the registry readable")
    missing = [kind for kind in KINDS if kind not in {statement.kind for statement in facts.signatures}]
    if missing:
        why = "there is no signed " + " and no signed ".join(missing)
        return failed("signature", f"no {missing[0]}", threshold, why, fix)
    for statement in facts.signatures:
        if statement.signer is None:
            why = f"no trusted key verifies the {statement.kind}: {statement.problem or 'the signature is invalid'}"
            return failed("signature", "invalid", threshold, why, fix)
        if statement.signer != statement.expected:
            why = f"the {statement.kind} is signed by {statement.signer}; expected {statement.expected}"
            return failed("signature", f"by {statement.signer}", threshold, why, fix)
    signers = sorted({statement.expected for statement in facts.signatures})
    return passed("signature", f"by {', '.join(signers)}", threshold, f"{len(facts.signatures)} statements verified")
