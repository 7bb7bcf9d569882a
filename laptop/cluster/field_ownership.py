"""Field ownership of server-side apply: who set which field, what an apply changes, and with whom it conflicts.

A field set has the form of `managedFields[].fieldsV1`: nested objects with the keys `f:<field>`, `k:<key of an item>`
and `v:<item>`. A set without content is a member; `.` makes a set with content a member too. Pure functions.

The rules are those of Kubernetes (kubernetes.io: Server-Side Apply; the structured-merge-diff library).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.cluster.typed_schemas import ANY, FieldType, item_key

FieldSet = dict[str, Any]


# Sets


def _is_member(node: FieldSet) -> bool:
    return not node or "." in node


def _node(member: bool, children: FieldSet) -> FieldSet | None:
    if children:
        return {".": {}, **children} if member else children
    return {} if member else None


def _children(node: FieldSet) -> FieldSet:
    return {key: value for key, value in node.items() if key != "."} if "." in node else node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields of either set."""
    result = dict(one)
    for key, node in other.items():
        mine = result.get(key)
        if mine is None:
            result[key] = node
        else:
            both = _node(_is_member(mine) or _is_member(node), union(_children(mine), _children(node)))
            result[key] = both or {}
    return result


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields of `one` that are not in `other`."""
    result: FieldSet = {}
    for key, node in one.items():
        theirs = other.get(key)
        left = node
        if theirs is not None:
            rest = difference(_children(node), _children(theirs))
            found = _node(_is_member(node) and not _is_member(theirs), rest)
            if found is None:
                continue
            left = found
        result[key] = left
    return result


def without_subtrees(one: FieldSet, tops: FieldSet) -> FieldSet:
    """Return the fields of `one` that are neither in `tops` nor below a member of it."""
    result: FieldSet = {}
    for key, node in one.items():
        top = tops.get(key)
        if top is None:
            result[key] = node
        elif not _is_member(top):
            found = _node(_is_member(node), without_subtrees(_children(node), _children(top)))
            if found is not None:
                result[key] = found
    return result


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields of both sets."""
    result: FieldSet = {}
    for key, node in one.items():
        theirs = other.get(key)
        if theirs is not None:
            both = intersection(_children(node), _children(theirs))
            found = _node(_is_member(node) and _is_member(theirs), both)
            if found is not None:
                result[key] = found
    return result


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Yield the members as paths: `.spec.containers[name="x"].image`."""
    for key, node in fields.items():
        kind, _, text = key.partition(":")
        if kind == "f":
            here = f"{prefix}.{text}"
        elif kind == "k":
            words = [f"{name}={json.dumps(value)}" for name, value in json.loads(text).items()]
            here = f"{prefix}[{','.join(words)}]"
        else:
            here = f"{prefix}[{'=' if kind == 'v' else ''}{text}]"
        if _is_member(node):
            yield here
        yield from paths(_children(node), here)


# Objects


def fields_of(type_: FieldType, value: Any) -> FieldSet:
    """Return the fields that a manifest names."""
    return _fields_of(type_, value) if isinstance(value, dict) else {}


def _fields_of(type_: FieldType, value: Any) -> FieldSet:
    """Return the fields below a value; {} for a leaf."""
    if isinstance(value, dict) and not _is_leaf_map(type_):
        result: FieldSet = {}
        for key, item in value.items():
            inner = (type_.field(key) if type_.form == "object" else None) or ANY
            below = _fields_of(inner, item)
            is_member = item is None or item == {} or not (type_.is_struct and type_.is_named(key))
            if below:
                result[f"f:{key}"] = {".": {}, **below} if is_member and not _is_list(inner, item) else below
            elif not (item == [] and _is_list(inner, item)):
                result[f"f:{key}"] = {}
        return result
    if _is_list(type_, value):
        result = {}
        for index, item in enumerate(value):
            below = _fields_of(type_.element or ANY, item)
            result[item_key(type_, item, index)] = {".": {}, **below} if below else {}
        return result
    return {}


def _is_leaf_map(type_: FieldType) -> bool:
    return type_.atomic or type_.form == "scalar"


def _is_list(type_: FieldType, value: Any) -> bool:
    """Return whether a value is a list whose items are owned one by one."""
    return isinstance(value, list) and type_.form == "list" and not type_.atomic


@dataclass
class Comparison:
    """Differences between two objects."""

    added: FieldSet = field(default_factory=dict)
    modified: FieldSet = field(default_factory=dict)
    removed: FieldSet = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """True if nothing differs."""
        return not (self.added or self.modified or self.removed)

    def without(self, tops: FieldSet) -> Comparison:
        """Return the differences outside some fields."""
        return Comparison(*(without_subtrees(each, tops) for each in (self.added, self.modified, self.removed)))


def compare(type_: FieldType, old: Any, new: Any) -> Comparison:
    """Return what changes between two objects."""
    result = Comparison()
    if old != new:
        _compare(type_, old, new, result.added, result.modified, result.removed)
    return result


def _compare(
    type_: FieldType, old: dict[str, Any], new: dict[str, Any], added: FieldSet, modified: FieldSet, removed: FieldSet
) -> None:
    """Compare two maps, or two lists as maps of their items."""
    for name in [*old, *(name for name in new if name not in old)]:
        key, inner = name, ANY
        if name[:2] not in ("k:", "v:") or type_.form != "list":
            key, inner = f"f:{name}", (type_.field(name) if type_.form == "object" else None) or ANY
        else:
            inner = type_.element or ANY
        if name not in old:
            added[key] = _everything(inner, new[name])
        elif name not in new:
            removed[key] = _everything(inner, old[name])
        elif old[name] != new[name]:
            before, after = _as_map(inner, old[name]), _as_map(inner, new[name])
            if before is None or after is None:
                modified[key] = {}
                continue
            parts: tuple[FieldSet, FieldSet, FieldSet] = ({}, {}, {})
            _compare(inner, before, after, *parts)
            for whole, part in zip((added, modified, removed), parts, strict=True):
                if part:
                    whole[key] = part


def _as_map(type_: FieldType, value: Any) -> dict[str, Any] | None:
    """Return a value as a map of what is owned one by one, or None if it is owned as a whole."""
    if value is None and type_.form != "scalar":
        return {}
    if isinstance(value, dict):
        return None if _is_leaf_map(type_) else value
    if _is_list(type_, value):
        return {item_key(type_, item, index): item for index, item in enumerate(value)}
    return None


def _everything(type_: FieldType, value: Any) -> FieldSet:
    """Return the set of a value that is there on one side only: every field, and all that hold them."""
    inside = _as_map(type_, value)
    if not inside:
        return {}
    result: FieldSet = {".": {}}
    for name, item in inside.items():
        if type_.form == "list":
            result[name] = _everything(type_.element or ANY, item)
        else:
            inner = (type_.field(name) if type_.form == "object" else None) or ANY
            result[f"f:{name}"] = _everything(inner, item)
    return result


def merge(type_: FieldType, live: Any, config: Any) -> Any:
    """Return a live value with the fields of an applied one."""
    if isinstance(live, dict) and isinstance(config, dict) and not _is_leaf_map(type_):
        result = dict(live)
        for key, value in config.items():
            inner = (type_.field(key) if type_.form == "object" else None) or ANY
            result[key] = merge(inner, live[key], value) if key in live else value
        return result
    if _is_list(type_, live) and isinstance(config, list):
        before, wanted = _as_map(type_, live) or {}, _as_map(type_, config) or {}
        element = type_.element or ANY
        return _in_order(
            before, {key: merge(element, before[key], item) if key in before else item for key, item in wanted.items()}
        )
    return config


def _in_order(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Any]:
    """Return the items of both: the wanted ones in their order, each of the others as soon as it comes up."""
    live_keys, wanted_keys = list(live), list(wanted)
    shared = [key for key in wanted_keys if key in live]
    result: dict[str, Any] = {}
    left = right = 0
    while left < len(live_keys) or right < len(wanted_keys):
        if left < len(live_keys) and right < len(wanted_keys):
            key = live_keys[left]
            if key == wanted_keys[right]:
                result[key] = wanted[key]
                left, right = left + 1, right + 1
                shared = [other for other in shared if other not in result]
                continue
            if key in wanted and shared and shared[0] != key:
                left += 1
                continue
        if left < len(live_keys):
            key = live_keys[left]
            if key not in wanted:
                result[key] = live[key]
                left += 1
                continue
            if key in result:
                left += 1
        if right < len(wanted_keys):
            result[wanted_keys[right]] = wanted[wanted_keys[right]]
            right += 1
            shared = [other for other in shared if other not in result]
    return list(result.values())


def remove(type_: FieldType, value: Any, fields: FieldSet) -> Any:
    """Return a value without some fields; None if nothing is left of a list or a map."""
    inside = _as_map(type_, value)
    if inside is None or not fields:
        return value
    left: dict[str, Any] = {}
    for name, item in inside.items():
        is_item = type_.form == "list"
        node = fields.get(name if is_item else f"f:{name}")
        if node is not None and _is_member(node):
            continue
        if node is not None:
            inner = (type_.element if is_item else type_.field(name) if type_.form == "object" else None) or ANY
            item = remove(inner, item, node)
            if item is None:
                continue
        left[name] = item
    if not left:
        return None
    return list(left.values()) if type_.form == "list" else left


def _with_named(type_: FieldType, fields: FieldSet) -> FieldSet:
    """Return a set in which the fields of structs that hold members are members too."""
    result: FieldSet = {}
    for key, node in fields.items():
        if key == ".":
            result[key] = node
            continue
        is_field = key.startswith("f:")
        name = key[2:]
        inner = (type_.field(name) if is_field and type_.form == "object" else type_.element) or ANY
        below = _with_named(inner, _children(node))
        is_member = _is_member(node) or (is_field and type_.is_struct and type_.is_named(name))
        result[key] = _node(is_member, below) or {}
    return result


# Managers


@dataclass(frozen=True)
class Manager:
    """Identity of a field manager: its name, `Apply` or `Update`, the version it used, and the subresource."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True)
class Owned:
    """Fields of a manager and the time at which it took the last of them."""

    fields: FieldSet
    time: str


Managers = dict[Manager, Owned]


def read_managers(entries: Any) -> Managers | None:
    """Return the managers of `metadata.managedFields`, or None if it cannot be read."""
    result: Managers = {}
    try:
        for entry in entries or ():
            if entry.get("operation") not in ("Apply", "Update") or entry.get("fieldsType", "FieldsV1") != "FieldsV1":
                return None
            manager = Manager(
                entry.get("manager", ""), entry["operation"], entry["apiVersion"], entry.get("subresource", "")
            )
            known = result.get(manager)
            fields = entry.get("fieldsV1") or {}
            result[manager] = Owned(union(known.fields, fields) if known else fields, entry.get("time", ""))
    except (AttributeError, KeyError, TypeError):
        return None
    return result


def write_managers(managers: Managers) -> list[dict[str, Any]]:
    """Return `metadata.managedFields`."""
    order = sorted(
        managers.items(),
        key=lambda item: (item[0].operation, item[1].time, item[0].name, item[0].api_version, item[0].subresource),
    )
    entries = []
    for manager, owned in order:
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.fields,
        }
        if not owned.time:
            del entry["time"]
        entries.append(entry | ({"subresource": manager.subresource} if manager.subresource else {}))
    return entries


_NEVER_OWNED: FieldSet = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        ".": {},
        "f:name": {},
        "f:namespace": {},
        "f:creationTimestamp": {},
        "f:selfLink": {},
        "f:uid": {},
        "f:clusterName": {},
        "f:generation": {},
        "f:managedFields": {},
        "f:resourceVersion": {},
    },
}

_MOST_UPDATERS = 10
_ANCIENT = "ancient-changes"


def after_update(
    type_: FieldType, managers: Managers, manager: Manager, old: Any, new: Any, ignored: FieldSet, time: str
) -> Managers:
    """Return the managers after an update, a patch or a creation: whoever changes a field takes it.

    Args:
        type_: type of the objects.
        managers: managers before.
        manager: manager that writes.
        old: object before.
        new: object after.
        ignored: fields that the request cannot change.
        time: time of the request.
    """
    comparison = compare(type_, old, new).without(ignored)
    if comparison.is_same:
        return managers
    taken = difference(union(comparison.added, comparison.modified), _NEVER_OWNED)
    result = _less(managers, union(union(comparison.added, comparison.modified), comparison.removed), keep=None)
    if taken:
        mine = result.get(manager)
        result[manager] = Owned(union(mine.fields, taken) if mine else taken, time)
    return _capped(result)


def _less(managers: Managers, fields: FieldSet, keep: Manager | None) -> Managers:
    result: Managers = {}
    for manager, owned in managers.items():
        left = owned.fields if manager == keep else difference(owned.fields, fields)
        if left:
            result[manager] = owned if left == owned.fields else Owned(left, owned.time)
    return result


def _capped(managers: Managers) -> Managers:
    """Merge the oldest updaters if there are too many, as Kubernetes does."""
    updaters = sorted((item for item in managers.items() if item[0].operation == "Update"), key=lambda i: i[1].time)
    result = dict(managers)
    for manager, owned in updaters[: max(0, len(updaters) - _MOST_UPDATERS)]:
        del result[manager]
        ancient = Manager(_ANCIENT, "Update", manager.api_version)
        known = result.get(ancient)
        result[ancient] = Owned(union(known.fields, owned.fields) if known else owned.fields, owned.time)
    return result


class ApplyConflict(Exception):  # noqa: N818
    """Other managers own fields that an apply would change.

    Args:
        conflicts: the fields of each manager.
    """

    def __init__(self, conflicts: Managers) -> None:
        self.conflicts = conflicts
        super().__init__("conflict")


def apply(
    type_: FieldType,
    managers: Managers,
    manager: Manager,
    live: dict[str, Any],
    config: dict[str, Any],
    *,
    force: bool,
    ignored: FieldSet,
    time: str,
) -> tuple[dict[str, Any], Managers]:
    """Return the object and the managers after a server-side apply.

    Args:
        type_: type of the objects.
        managers: managers before.
        manager: manager that applies.
        live: object before.
        config: applied manifest.
        force: take over the fields of other managers.
        ignored: fields that the request cannot change.
        time: time of the request.

    Raises:
        ApplyConflict: another manager owns a field with another value, and `force` is False.
    """
    merged = merge(type_, live, config)
    former = managers.get(manager)
    named = without_subtrees(fields_of(type_, config), ignored)
    owned = difference(named, _NEVER_OWNED)
    result = _pruned(type_, merged, {**managers, manager: Owned(named, time)}, former.fields if former else {})
    new_managers = {**managers, manager: Owned(owned, time)}
    comparison = compare(type_, live, result).without(ignored)
    changed = union(comparison.added, comparison.modified)
    conflicts: Managers = {}
    for other, theirs in new_managers.items():
        if other != manager and (common := intersection(theirs.fields, changed)):
            conflicts[other] = Owned(common, theirs.time)
    if conflicts and not force:
        raise ApplyConflict(conflicts)
    after = _less(new_managers, union(changed, comparison.removed), keep=manager)
    if not owned:
        after.pop(manager, None)
    elif result == live:  # an apply that changes nothing has no time of its own
        after[manager] = Owned(owned, former.time if former else "")
    return result, after


def _pruned(type_: FieldType, merged: dict[str, Any], managers: Managers, last: FieldSet) -> dict[str, Any]:
    """Remove the fields that the manager applied before and no longer names, unless another manager owns them."""
    if not last:
        return merged
    last_named = _with_named(type_, last)
    pruned = remove(type_, merged, last_named) or {}
    everything = _with_named(type_, fields_of(type_, merged))
    owned: FieldSet = {}
    for each in managers.values():
        owned = union(owned, each.fields)
    kept = union(_with_named(type_, fields_of(type_, pruned)), _with_named(type_, owned))
    pruned = remove(type_, merged, difference(everything, kept)) or {}
    gone = difference(everything, _with_named(type_, fields_of(type_, pruned)))
    return remove(type_, merged, intersection(gone, last_named)) or {}
