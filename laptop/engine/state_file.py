"""State file of a stack: versioned JSON with encrypted secrets."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from laptop.engine.paths import parse_path, write_path
from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.sealing import Seal
from laptop.engine.urns import Urn
from laptop.engine.values import Properties, is_at, lookup, with_value
from pipelines.declarations.errors import MlopsError

STATE_VERSION = 2
STACK_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
SECRET_MASK = "[secret]"  # noqa: S105 - shown in place of a secret

_SEALED = "$sealed"


def state_path(home: Path, stack: str) -> Path:
    """Return the path of a stack's state file.

    Raises:
        MlopsError: the name is not valid.
    """
    if not STACK_NAME.fullmatch(stack):
        raise MlopsError(
            f"`{stack}` is not a valid stack name",
            fix="use at most 100 letters, digits, `-`, `_` and `.`, not starting with `.`.",
        )
    return home / "state" / f"{stack}.json"


class Encoder:
    """Encodes contents as the bytes of a state file.

    Args:
        seal: encrypts secrets.
    """

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._encoded: dict[int, tuple[ResourceState, str]] = {}

    def encode(self, contents: Contents) -> bytes:
        """Return the bytes. Resources that did not change since the last call are not encoded again."""
        head = {
            "version": STATE_VERSION,
            "project": contents.project,
            "stack": contents.stack,
            "incarnation": contents.incarnation,
        }
        encoded: dict[int, tuple[ResourceState, str]] = {}

        def one(known: ResourceState) -> str:
            # Resource states are immutable, so an encoding can be reused.
            before = self._encoded.get(id(known))
            text = before[1] if before is not None and before[0] is known else self._encode_one(known)
            encoded[id(known)] = (known, text)
            return text

        pending = [f'{{"kind":"{item.kind}","resource":{one(item.resource)}}}' for item in contents.pending.values()]
        parts = {
            "resources": [one(known) for known in contents.resources.values()],
            "doomed": [one(known) for known in contents.doomed.values()],
            "pending": pending,
        }
        self._encoded = encoded
        lists = [f'"{key}":[' + ",".join(f"\n{item}" for item in items) + "]" for key, items in parts.items()]
        return (json.dumps(head)[:-1] + ",\n" + ",\n".join(lists) + "}\n").encode()

    def _encode_one(self, known: ResourceState) -> str:
        document: dict[str, Any] = {}
        for item in fields(known):
            value = getattr(known, item.name)
            if isinstance(value, Properties):
                value = self._encode_properties(value)
            if value or item.name in ("urn", "custom"):
                document[item.name] = value
        return json.dumps(document, separators=(",", ":"))

    def _encode_properties(self, properties: Properties) -> dict[str, Any]:
        sealed: dict[str, str] = {}
        values = properties.values
        for path in sorted(properties.secrets, key=len):
            if is_at(values, path):
                sealed[write_path(path)] = self._seal.seal(lookup(values, path))
                values = with_value(values, path, None)
        return {**values, _SEALED: sealed} if sealed else values


def load(path: Path, project: str, stack: str, incarnation: str, seal: Seal) -> Contents:
    """Read the state file of a stack; without one the stack is empty.

    Raises:
        MlopsError: the file is damaged, newer than this release, of another project or stack, or its resources are
            in another account than `incarnation`. The file is left unchanged.
    """
    document = read_document(path)
    if document is None:
        return Contents(project, stack, incarnation)
    contents = _decode(path, document, seal)
    if (contents.project, contents.stack) != (project, stack):
        raise MlopsError(
            f"{path} belongs to another stack: expected stack `{stack}` of project `{project}`, "
            f"found stack `{contents.stack}` of project `{contents.project}`",
            fix="give each project its own MLOPS_HOME, or rename the stack.",
        )
    if contents.incarnation != incarnation:
        known = contents.resources or contents.doomed or contents.pending
        if known and contents.incarnation and incarnation:
            raise MlopsError(
                f"{path} describes resources in another account: expected `{incarnation}`, which is running, "
                f"found `{contents.incarnation}`",
                fix=f"delete {path} to forget those resources.",
            )
        contents.incarnation = incarnation or contents.incarnation
    return contents


def read_document(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a state file; None without a file.

    Raises:
        MlopsError: the file is damaged or newer than this release.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not a JSON document: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise _damaged(path, "it has no version number")
    if document["version"] > STATE_VERSION:
        raise MlopsError(
            f"{path} was written by a newer release: expected version {STATE_VERSION} or lower, "
            f"found {document['version']}",
            fix="use the release that wrote it, or a later one.",
        )
    return document


def _damaged(path: Path, reason: str) -> MlopsError:
    return MlopsError(
        f"the state file {path} is damaged: {reason}",
        fix="restore a copy of it, or delete it to forget every resource of the stack.",
    )


def _decode(path: Path, document: dict[str, Any], seal: Seal) -> Contents:
    try:
        resources = [_decode_one(item, seal) for item in document["resources"]]
        doomed = [_decode_one(item, seal) for item in document["doomed"]]
        pending = [_decode_pending(item, seal) for item in document["pending"]]
        return Contents(
            project=document["project"],
            stack=document["stack"],
            incarnation=document["incarnation"],
            resources={known.urn: known for known in resources},
            doomed={(known.urn, known.id): known for known in doomed},
            pending={item.key: item for item in pending},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _decode_pending(document: dict[str, Any], seal: Seal) -> Pending:
    if document["kind"] not in ("create", "update", "delete"):
        raise ValueError(f"unknown pending step `{document['kind']}`")
    return Pending(document["kind"], _decode_one(document["resource"], seal))


def _decode_one(document: dict[str, Any], seal: Seal) -> ResourceState:
    known = dict(document)
    Urn.parse(known["urn"])
    for key in ("inputs", "outputs"):
        known[key] = _decode_properties(known.get(key, {}), seal)
    for key in ("dependencies", "secret_names", "replace_on_changes", "replace_with"):
        known[key] = tuple(known.get(key, ()))
    known["property_dependencies"] = tuple((key, tuple(urns)) for key, urns in known.get("property_dependencies", ()))
    return ResourceState(**known)


def _decode_properties(document: dict[str, Any], seal: Seal) -> Properties:
    sealed = document.get(_SEALED)
    if not sealed:
        return Properties(document)
    values = {key: value for key, value in document.items() if key != _SEALED}
    paths = {parse_path(text): text for text in sealed}
    # In reverse order of encryption: inner secrets first.
    for path in sorted(paths, key=len, reverse=True):
        values = with_value(values, path, seal.open(sealed[paths[path]]))
    return Properties(values, frozenset(paths))


def stack_outputs(home: Path, stack: str, *, reveal: bool = False) -> dict[str, Any]:
    """Return the outputs of a stack; {} if it has none or was never applied.

    Args:
        home: folder of the laptop.
        reveal: False replaces each secret by `[secret]`.

    Raises:
        MlopsError: the state file is damaged or newer than this release.
    """
    outputs = known_outputs(state_path(home, stack), Seal(home / "state"))
    if outputs is None:
        return {}
    return outputs.values if reveal else masked(outputs)


def resource_counts(home: Path, stack: str) -> dict[str, int]:
    """Count the resources of a stack by package (`aws`, `kubernetes`); those in the state only are `recorded`.

    Args:
        home: folder of the laptop.

    Raises:
        MlopsError: the state file is damaged or newer than this release.
    """
    path = state_path(home, stack)
    document = read_document(path)
    if document is None:
        return {}
    held = (r for r in _decode(path, document, Seal(home / "state")).resources.values() if r.custom)
    packages = ("recorded" if resource.recorded else resource.type.partition(":")[0] for resource in held)
    return dict(sorted(Counter(name for name in packages if name != "pulumi").items()))


def known_outputs(path: Path, seal: Seal, *, project: str = "") -> Properties | None:
    """Return the outputs in a state file; None without the file, or if it belongs to another project."""
    document = read_document(path)
    if document is None or (project and document.get("project") != project):
        return None
    found = _decode(path, document, seal).stack_resource()
    return found.outputs if found is not None else Properties({})


def masked(properties: Properties) -> dict[str, Any]:
    """Return the values with `[secret]` in place of each secret."""
    values: dict[str, Any] = properties.values
    for path in sorted(properties.secrets, key=len):
        if is_at(values, path):
            values = with_value(values, path, SECRET_MASK)
    return values
