"""Condition keys for tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from laptop.aws.access.policy import Context


def tag_context(given: Mapping[str, str], held: Mapping[str, str], keys: Iterable[str] = ()) -> Context:
    """Return the condition keys of tags.

    Args:
        given: tags in the request.
        held: tags of the resource.
        keys: tag keys in the request without a value.
    """
    return {
        **{f"aws:requesttag/{key}".lower(): (value,) for key, value in given.items()},
        **{f"aws:resourcetag/{key}".lower(): (value,) for key, value in held.items()},
        "aws:tagkeys": (*given, *keys),
    }
