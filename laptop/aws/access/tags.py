"""Tags as policies see them: those that a request gives, and those that its resource has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from laptop.aws.access.policy import Context


def tag_context(given: Mapping[str, str], held: Mapping[str, str], keys: Iterable[str] = ()) -> Context:
    """The condition keys of tags.

    Args:
        given: the tags in the request.
        held: the tags of the resource.
        keys: tag keys in the request that come without a value.
    """
    return {
        **{f"aws:requesttag/{key}".lower(): (value,) for key, value in given.items()},
        **{f"aws:resourcetag/{key}".lower(): (value,) for key, value in held.items()},
        "aws:tagkeys": (*given, *keys),
    }
