"""Gate: a change of pins changes the pins of one environment and nothing else."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, passed


def scope(facts: PinFacts) -> Verdict:
    """Refuse a pull request that changes anything but the pins of one environment."""
    path = f"Pulumi.{facts.environment}.yaml"
    threshold = "1 pin file"
    fix = "propose the other changes in a separate pull request"
    others = sorted(set(facts.changed_files) - {path})
    if others:
        named = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        return failed("scope", counted(len(others) + 1, "file"), threshold, f"it also changes {named}", fix)
    if not facts.only_pins:
        return failed("scope", "other keys", threshold, f"{path} changes more than images", fix)
    return passed("scope", "1 file", threshold, f"only the images in {path} change")
