"""Gate: the environment has an image that serves the bundle."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, passed


def image(facts: Facts) -> Verdict:
    """Refuse a release to an environment that pins no serving image, so it could not run the bundle."""
    threshold = "a pinned serving image"
    environment = facts.release.environment
    if facts.serving_image is None:
        why = f"{environment} pins no serving image, so nothing could serve the bundle"
        return failed("image", "none", threshold, why, how_to_pin(environment, facts.promotes_from))
    return passed("image", facts.serving_image[:19], threshold, f"{environment} pins it")


def how_to_pin(environment: str, promotes_from: str | None) -> str:
    """Return what gives an environment a serving image.

    Args:
        environment: the environment.
        promotes_from: the environment before; None for the first.
    """
    if promotes_from is None:
        return "run the workflow `images`, and merge the pull request that it opens"
    return (
        f"merge the pull request of the branch pin/{environment}; a deployment of {promotes_from} opens it, so run the "
        f"workflow deploy for {promotes_from} if there is none"
    )
