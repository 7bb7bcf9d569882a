"""Pages of a list: the parameters `limit`, `continue` and `resourceVersion`. Pure functions."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from laptop.cluster.kinds import Kind
from laptop.cluster.objects import Object, name_of, namespace_of
from laptop.cluster.refusals import FORBIDDEN, FieldProblem, StatusError, bad_request, invalid

_LIST_OPTIONS = Kind("meta.k8s.io", "v1", "ListOptions", "listoptions")


def page_of(items: Sequence[Object], query: Mapping[str, str], version: int) -> tuple[list[Object], dict[str, Any]]:
    """Return the items of the page that a request asks for, and the metadata of the list.

    Args:
        items: all items, by namespace and name.
        query: parameters of the request.
        version: version of the newest change.

    Raises:
        StatusError: 400 or 422, a parameter is not valid; 410, the version of a `continue` token is not known.
    """
    limit_text, token = query.get("limit", ""), query.get("continue", "")
    if limit_text and not limit_text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{limit_text}": invalid syntax')
    _check_version(query, version, token)
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if token:
        start, at = _read(token)
        items = [item for item in items if (namespace_of(item), name_of(item)) > start]
        if at > version:
            raise StatusError(410, "Expired", "The provided continue parameter is too old")
        metadata["resourceVersion"] = str(at)
    limit = int(limit_text or 0)
    if limit > 0 and len(items) > limit:
        last = items[limit - 1]
        metadata["continue"] = _write((namespace_of(last), name_of(last)), int(metadata["resourceVersion"]))
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(items) - limit
        items = items[:limit]
    return list(items), metadata


def _check_version(query: Mapping[str, str], version: int, token: str) -> None:
    wanted, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match and not wanted:
        says = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise invalid(_LIST_OPTIONS, "", [FieldProblem(FORBIDDEN, "resourceVersionMatch", detail=says)])
    if not wanted:
        return
    if not wanted.isdigit():
        says = f'strconv.ParseUint: parsing "{wanted}": invalid syntax'
        raise bad_request(f'resourceVersion: Invalid value: "{wanted}": {says}')
    if token and wanted != "0":
        raise bad_request("specifying resource version is not allowed when using continue")
    if int(wanted) > version:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        message = f"Too large resource version: {wanted}, current: {version}"
        raise StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def _write(start: tuple[str, str], version: int) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": list(start)})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(token: str) -> tuple[tuple[str, str], int]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = found["start"]
        return (str(namespace), str(name)), int(found["rv"])
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request("continue key is not valid") from error
