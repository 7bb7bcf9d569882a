"""Conversion between Pulumi's and AWS's property names, which differ in upper and lower case.

botocore's model of each operation has AWS's spelling (`SSEAlgorithm` for `sseAlgorithm`), so the rows of the table do
not need it.
"""

from __future__ import annotations

from typing import Any

from pipelines.declarations.errors import MlopsError


def to_aws(value: Any, shape: Any, at: str) -> Any:
    """Convert a value with camelCase keys to a boto3 parameter.

    Args:
        shape: botocore shape of the parameter.
        at: path of the value (`rules[0].status`), for errors.

    Raises:
        MlopsError: the shape does not have a key.
    """
    kind = shape.type_name
    if kind == "structure":
        members = {name.lower(): name for name in shape.members}
        found = {}
        for key, item in value.items():
            name = members.get(key.lower())
            if name is None:
                raise MlopsError(
                    f"`{at}.{key}` is not a parameter of AWS's `{shape.name}`: expected one of "
                    f"{', '.join(sorted(members))}",
                    fix="correct the property, or convert it in its row in laptop/aws/resources/.",
                )
            if item is not None:
                found[name] = to_aws(item, shape.members[name], f"{at}.{key}")
        return found
    if kind == "list":
        if isinstance(value, dict) and _is_tag(shape.member):
            return tag_list(value)
        items = value if isinstance(value, list | tuple) else [value]
        return [to_aws(item, shape.member, f"{at}[{index}]") for index, item in enumerate(items)]
    if kind == "map":
        return {key: to_aws(item, shape.value, f"{at}.{key}") for key, item in value.items()}
    if kind in ("integer", "long"):  # all numbers on Pulumi's wire are floats
        return int(value)
    return value


def to_pulumi(answer: Any, like: Any = None) -> Any:
    """Convert an AWS response to camelCase keys.

    Args:
        like: inputs with the keys to keep and their spelling; None keeps every key.
    """
    if isinstance(answer, dict):
        if not isinstance(like, dict):
            return {key[:1].lower() + key[1:]: to_pulumi(item) for key, item in answer.items()}
        lower = {key.lower(): item for key, item in answer.items()}
        return {key: to_pulumi(lower[key.lower()], item) for key, item in like.items() if key.lower() in lower}
    if isinstance(answer, list):
        if isinstance(like, dict) and all(isinstance(item, dict) and item.keys() == _TAG for item in answer):
            return tag_map(answer)
        if like is not None and not isinstance(like, list):  # one item, which Pulumi has without a list
            return to_pulumi(answer[0], like) if answer else None
        guides = like or [None]  # a further item is like the last one
        return [to_pulumi(item, guides[min(index, len(guides) - 1)]) for index, item in enumerate(answer)]
    return answer


_TAG = {"Key", "Value"}


def _is_tag(shape: Any) -> bool:
    return shape.type_name == "structure" and set(shape.members) == _TAG


def tag_list(tags: dict[str, str] | None, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Return tags as a list of pairs, the form of most services."""
    return [{key: name, value: text} for name, text in sorted((tags or {}).items())]


def tag_map(pairs: list[dict[str, str]] | None, key: str = "Key", value: str = "Value") -> dict[str, str]:
    """Return a list of tag pairs as a dict."""
    return {pair[key]: pair[value] for pair in pairs or []}
