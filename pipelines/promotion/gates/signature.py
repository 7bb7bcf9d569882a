"""What is said of the bundle is signed by who may say it."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed

KINDS = ("provenance", "evaluation")


def signature(facts: Facts) -> Verdict:
    """Refuses a bundle whose provenance or evaluation is not signed by the environment that trains."""
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
            why = f"no trusted key verifies the {statement.kind}: {statement.problem or 'its signature is wrong'}"
            return failed("signature", "invalid", threshold, why, fix)
        if statement.signer != statement.expected:
            why = f"{statement.signer} signed the {statement.kind}; only {statement.expected} may"
            return failed("signature", f"by {statement.signer}", threshold, why, fix)
    signers = sorted({statement.expected for statement in facts.signatures})
    return passed("signature", f"by {', '.join(signers)}", threshold, f"{len(facts.signatures)} statements verify")
