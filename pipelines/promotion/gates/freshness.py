"""Gate: the release replaces the bundle that is live."""

from __future__ import annotations

from pipelines.declarations.markdown import short_digest
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def freshness(facts: Facts) -> Verdict:
    """Refuse a stale release: another bundle went live since it was proposed."""
    replaced, live = short_digest(facts.release.replaces), short_digest(facts.live)
    if "live" in facts.unknown:
        return inconclusive("freshness", replaced, facts.missing("live"), "make the environment reachable")
    if facts.live != facts.release.replaces:
        why = f"the release replaces {replaced}, but {live} is live in {facts.release.environment}"
        return failed("freshness", live, replaced, why, "propose the release again")
    return passed("freshness", live, replaced, f"replaces {replaced}, {live} is live")
