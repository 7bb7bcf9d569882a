"""Compare the state of the laptop's engine with that of Pulumi's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from laptop.conformance.inline_cli import Finished
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import is_provider
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.engine.resources import Contents, ResourceState
from laptop.engine.values import Properties, PropertyPath, lookup

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "<secret>"

IGNORED: Mapping[str, str] = {
    "created, modified, sourcePosition, stackTrace": "times and places, which no decision depends on",
    "pulumi:providers:<package>::default…": "Pulumi registers default providers as resources; the laptop has one "
    "provider per package and needs none",
    "id of an explicit provider": "random in Pulumi",
    "aliases": "the alias that matched last; the laptop needs it only during the run",
    "ignoreChanges, replaceOnChanges, customTimeouts": "options of the program; the laptop takes them from the "
    "program in every run",
}
"""What the comparison leaves out, and why."""

Record = dict[str, Any]


def of_pulumi(deployment: Mapping[str, Any]) -> dict[str, Record]:
    """Return the resources of a Pulumi deployment (`pulumi stack export --show-secrets`) in comparable form.

    Keys are URNs; replaced copies that still have to be deleted have `URN (replaced) id`, pending operations
    `URN (<operation>)`.
    """
    records: dict[str, Record] = {}
    for item in deployment.get("resources") or ():
        if _is_default_provider(item["urn"]):
            continue
        provider = item.get("provider", "").rpartition("::")[0]
        record = {
            "type": item["type"],
            "custom": item.get("custom", False),
            "id": "" if is_provider(item["type"]) else item.get("id", ""),
            "inputs": _plain(item.get("inputs") or {}),
            "outputs": _plain(item.get("outputs") or {}),
            "parent": item.get("parent", ""),
            "dependencies": sorted(item.get("dependencies") or ()),
            "propertyDependencies": {
                key: sorted(urns) for key, urns in (item.get("propertyDependencies") or {}).items() if urns
            },
            "provider": "" if _is_default_provider(provider) else provider,
            "protect": item.get("protect", False),
            "retainOnDelete": item.get("retainOnDelete", False),
            "external": item.get("external", False),
            "deletedWith": item.get("deletedWith", ""),
            "replaceWith": sorted(item.get("replaceWith") or ()),
            "additionalSecretOutputs": sorted(item.get("additionalSecretOutputs") or ()),
            "pendingReplacement": item.get("pendingReplacement", False),
            "failed": bool(item.get("initErrors")),
        }
        key = f"{item['urn']} (replaced) {item.get('id', '')}" if item.get("delete") else item["urn"]
        records[key] = record
    for operation in deployment.get("pending_operations") or ():
        records[f"{operation['resource']['urn']} ({operation['type']})"] = {}
    return records


def of_laptop(contents: Contents) -> dict[str, Record]:
    """Return the resources in a state of the laptop in the same form."""
    records = {urn: _record(known, contents) for urn, known in contents.resources.items()}
    for (urn, id_), known in contents.doomed.items():
        records[f"{urn} (replaced) {id_}"] = _record(known, contents)
    for pending in contents.pending.values():
        if pending.kind == "create":
            records[f"{pending.resource.urn} (creating)"] = {}
    return records


def _record(known: ResourceState, contents: Contents) -> Record:
    return {
        "type": known.type,
        "custom": known.custom,
        "id": "" if is_provider(known.type) else known.id,
        "inputs": _marked(known.inputs),
        "outputs": _marked(known.outputs),
        "parent": known.parent,
        "dependencies": sorted(known.dependencies),
        "propertyDependencies": {key: sorted(urns) for key, urns in known.property_dependencies if urns},
        "provider": known.provider.rpartition("::")[0],
        "protect": known.protect,
        "retainOnDelete": known.retain_on_delete,
        "external": known.external,
        "deletedWith": known.deleted_with,
        "replaceWith": sorted(known.replace_with),
        "additionalSecretOutputs": sorted(known.secret_names),
        "pendingReplacement": getattr(known, "pending_replacement", False),
        "failed": ("update", known.urn, "") in contents.pending,
    }


def _is_default_provider(urn: str) -> bool:
    parts = urn.split("::")
    return len(parts) > 3 and is_provider(parts[2].split("$")[-1]) and parts[3].startswith("default")


def _plain(value: Any) -> Any:
    """Return a value of a deployment with secrets as `{"<secret>": value}`; keys with null are left out."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if _SIGNATURE in value and "plaintext" in value:
            return {_SECRET: _plain(json.loads(value["plaintext"]))}
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return value


def _marked(properties: Properties) -> Any:
    return _mark(properties.values, (), properties.secrets)


def _mark(value: Any, at: PropertyPath, secrets: frozenset[PropertyPath]) -> Any:
    if isinstance(value, dict):
        marked: Any = {str(key): _mark(item, (*at, key), secrets) for key, item in value.items() if item is not None}
    elif isinstance(value, list):
        marked = [_mark(item, (*at, index), secrets) for index, item in enumerate(value)]
    else:
        marked = value
    return {_SECRET: marked} if at in secrets else marked


# Steps

_OPERATIONS = {
    "create": "create",
    "update": "update",
    "same": "same",
    "read": "read",
    "read-replacement": "read",
    "delete": "delete",
    "create-replacement": "replace",
    "delete-replaced": "delete replaced",
    "import": "import",
    "import-replacement": "import",
}
"""Pulumi's names of steps. Others, like `replace` and `discard`, stand for no change of their own."""

_FOUND = {StepKind.DRIFTED: "update", StepKind.GONE: "delete"}
"""What a refresh finds, by Pulumi's names."""


def steps_of_pulumi(finished: Finished, before: Mapping[str, Record]) -> Counter[tuple[str, str]]:
    """Count the steps of a run of the CLI by operation and URN.

    Args:
        before: records of the state before. Pulumi shows the creation of a resource that was only read before as its
            replacement.
    """
    steps = finished.succeeded
    counted: Counter[tuple[str, str]] = Counter()
    for op, urn in steps:
        if op not in _OPERATIONS or _is_default_provider(urn):
            continue
        taken_over = op == "create-replacement" and before.get(urn, {}).get("external")
        counted["create" if taken_over else _OPERATIONS[op], urn] += 1
    return counted


def steps_of_laptop(steps: Iterable[ResourceStep]) -> Counter[tuple[str, str]]:
    """Count the steps of a run of the laptop's engine by operation and URN."""
    steps = [step for step in steps if step.kind is not StepKind.SKIPPED]
    replaced = {step.urn for step in steps if step.kind is StepKind.REPLACE}
    counted: Counter[tuple[str, str]] = Counter()
    for step in steps:
        kind = step.kind
        if kind is StepKind.FORGET:  # Pulumi shows a retained resource as deleted
            kind = StepKind.DELETE_REPLACED if step.urn in replaced else StepKind.DELETE
        counted[(kind.value, step.urn)] += 1
    return counted


def found_by_pulumi(finished: Finished) -> Counter[tuple[str, str]]:
    """Count what a `pulumi refresh` found changed or gone."""
    return Counter((op, urn) for op, urn in finished.ended if op in _FOUND.values())


def found_by_laptop(steps: Iterable[ResourceStep]) -> Counter[tuple[str, str]]:
    """Count what a refresh of the laptop's engine found changed or gone."""
    return Counter((_FOUND[step.kind], step.urn) for step in steps if step.kind in _FOUND)


def without_deletes(steps: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Return the steps that are not deletions."""
    return Counter({step: count for step, count in steps.items() if not step[0].startswith("delete")})


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return one line per value that differs between two mappings of records."""
    found: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in theirs:
            found.append(f"{key}: only on the laptop: {ours[key]}")
        elif key not in ours:
            found.append(f"{key}: only in Pulumi: {theirs[key]}")
        else:
            for path in changed_paths(ours[key], theirs[key]):
                a, b = (lookup(side[key], path, "nothing") for side in (ours, theirs))
                found.append(f"{key}: {write_path(path)}: laptop {a!r}, Pulumi {b!r}")
    return found
