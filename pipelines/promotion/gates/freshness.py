"""What the release says it replaces is what is live."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def freshness(facts: Facts) -> Verdict:
    """Refuses a stale release: something else went live since it was proposed."""
    wanted = facts.release.replaces or "nothing"
    if "live" in facts.unknown:
        return inconclusive("freshness", short(wanted), facts.missing("live"), "make the environment reachable")
    found = facts.live or "nothing"
    if found != wanted:
        why = f"{short(found)} is live in {facts.release.environment}, not {short(wanted)}"
        return failed("freshness", short(found), short(wanted), why, "propose the release again")
    return passed("freshness", short(found), short(wanted), f"{short(wanted)} is what is live")


def short(digest: str) -> str:
    """A digest as people recognise it."""
    return digest[:19] if digest.startswith("sha256:") else digest
