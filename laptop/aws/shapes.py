"""Between Pulumi's names and AWS's: the same properties, apart from the case of their letters.

botocore's own model of each operation says how AWS spells a parameter (`sseAlgorithm` is `SSEAlgorithm`), so no row of
the table has to.
"""

from __future__ import annotations

from typing import Any

from pipelines.declarations.errors import MlopsError


def to_aws(value: Any, shape: Any, at: str) -> Any:
    """A value with camelCase keys as a boto3 parameter.

    Args:
        shape: the botocore shape of the parameter.
        at: where the value stands (`rules[0].status`), for errors.

    Raises:
        MlopsError: a key that the shape does not have.
    """
    kind = shape.type_name
    if kind == "structure":
        members = {name.lower(): name for name in shape.members}
        found = {}
        for key, item in value.items():
            name = members.get(key.lower())
            if name is None:
                raise MlopsError(
                    f"`{at}.{key}` is not a parameter that AWS's `{shape.name}` has: expected one of "
                    f"{', '.join(sorted(members))}",
                    fix="correct the property, or teach its row in laptop/aws/resources/ how AWS spells it.",
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
    if kind in ("integer", "long"):  # numbers on Pulumi's wire are floating
        return int(value)
    return value


def to_pulumi(answer: Any, like: Any = None) -> Any:
    """What AWS answered with camelCase keys.

    Args:
        like: the inputs that the answer should be spelled as, and cut to; without them every key is kept.
    """
    if isinstance(answer, dict):
        if not isinstance(like, dict):
            return {key[:1].lower() + key[1:]: to_pulumi(item) for key, item in answer.items()}
        lower = {key.lower(): item for key, item in answer.items()}
        return {key: to_pulumi(lower[key.lower()], item) for key, item in like.items() if key.lower() in lower}
    if isinstance(answer, list):
        if isinstance(like, dict) and all(isinstance(item, dict) and item.keys() == _TAG for item in answer):
            return tag_map(answer)
        if like is not None and not isinstance(like, list):  # one item, which Pulumi holds without a list
            return to_pulumi(answer[0], like) if answer else None
        guides = like or []
        return [to_pulumi(item, guides[index] if index < len(guides) else None) for index, item in enumerate(answer)]
    return answer


_TAG = {"Key", "Value"}


def _is_tag(shape: Any) -> bool:
    return shape.type_name == "structure" and set(shape.members) == _TAG


def tag_list(tags: dict[str, str] | None, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Tags as the list of pairs that most services take."""
    return [{key: name, value: text} for name, text in sorted((tags or {}).items())]


def tag_map(pairs: list[dict[str, str]] | None, key: str = "Key", value: str = "Value") -> dict[str, str]:
    """The list of pairs that most services give as tags."""
    return {pair[key]: pair[value] for pair in pairs or []}
