"""Writes of the API: from a request's body to a stored object, with validation, defaults and field ownership."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import jsonpatch

from laptop.cluster import patches
from laptop.cluster.admission_control import admit
from laptop.cluster.defaults import empty_object, keep_secrets, with_defaults, with_generated, with_job_selector
from laptop.cluster.field_ownership import (
    ApplyConflict,
    FieldSet,
    Manager,
    Managers,
    Owned,
    after_update,
    apply,
    compare,
    difference,
    fields_of,
    paths,
    read_managers,
    union,
    write_managers,
)
from laptop.cluster.kinds import JOB, NAMESPACE, SECRET, SERVICE, Kind
from laptop.cluster.manifest_decoding import decode, unknown_fields
from laptop.cluster.objects import (
    WITHOUT_GENERATION,
    Object,
    ObjectStore,
    generated_name,
    is_deleting,
    name_of,
    namespace_of,
    now,
)
from laptop.cluster.refusals import (
    INVALID,
    FieldProblem,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    unsupported_media_type,
)
from laptop.cluster.typed_schemas import type_of

_STATUS: FieldSet = {"f:status": {}}
_CREATED_BY_PUT = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Event", "LimitRange", "Service"}
_PUT_NEEDS_VERSION = {"PodDisruptionBudget"}
_CUSTOM_GROUP = "argoproj.io"
_KUBECTL = "kubectl"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass
class WriteOptions:
    """Options of a request that writes.

    Attributes:
        manager: name of the field manager.
        dry: change nothing.
        force: take over fields of other managers.
        validation: `Strict`, `Warn` or `Ignore` unknown fields.
        subresource: `status`, `scale` or "".
        warnings: texts for the `Warning` headers of the response.
        unknown: unknown fields of the body, once it is read.
    """

    manager: str
    dry: bool = False
    force: bool = False
    validation: str = "Warn"
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """Result of a write: the object, and whether it was created."""

    object: Object
    created: bool = False


class ObjectWriter:
    """Writer of objects for the API.

    Args:
        store: objects of the cluster.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create(self, kind: Kind, namespace: str, body: Object, options: WriteOptions) -> Written:
        """Create an object.

        Raises:
            StatusError: the object is refused.
        """
        obj = self._decoded(kind, body, options)
        metadata = obj["metadata"]
        found = metadata.get("namespace")
        if kind.namespaced and found and found != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        self._check_namespace(kind, namespace, str(metadata.get("name", "")))
        if metadata.get("resourceVersion"):
            raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
        return self._new(kind, namespace, obj, options, Manager(options.manager, "Update", kind.api_version))

    def replace(self, kind: Kind, namespace: str, name: str, body: Object, options: WriteOptions) -> Written:
        """Replace an object, or create it if its kind allows that.

        Raises:
            StatusError: the object is refused.
        """
        obj = self._decoded(kind, body, options)
        self._check_place(kind, namespace, name, obj)
        old = self._store.find(kind, namespace, name)
        if old is None and kind.name in _CREATED_BY_PUT and not options.subresource:
            self._check_namespace(kind, namespace, name)
            manager = Manager(options.manager, "Update", kind.api_version)
            return self._new(kind, namespace, obj, options, manager)
        old = self._store.get(kind, namespace, name)
        given = obj["metadata"].get("resourceVersion")
        if not given and (kind.group == _CUSTOM_GROUP or kind.name in _PUT_NEEDS_VERSION):
            problem = FieldProblem(INVALID, "metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(kind, name, [problem], resource=True)
        return Written(self._updated(kind, old, obj, options))

    def patch(self, kind: Kind, namespace: str, name: str, type_: str, change: Any, options: WriteOptions) -> Written:
        """Patch an object by the media type of the patch. Only a server-side apply creates one.

        Raises:
            StatusError: the patch or the object is refused.
        """
        if type_ == patches.APPLY:
            return self._apply(kind, namespace, name, change, options)
        if type_ not in (patches.MERGE, patches.JSON) and (type_ != patches.STRATEGIC or kind.group == _CUSTOM_GROUP):
            accepted = [patches.JSON, patches.MERGE, *([] if kind.group == _CUSTOM_GROUP else [patches.STRATEGIC])]
            accepted.append(patches.APPLY)
            raise unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join([*accepted, "application/apply-patch+cbor"]),
                {},
            )
        old = self._store.get(kind, namespace, name)
        new = _patched(kind, old, type_, change)
        try:
            obj = self._decoded(kind, new, options)
        except StatusError as error:
            if error.code != 400:
                raise
            cause = {"reason": INVALID, "message": error.message, "field": "patch"}
            raise StatusError(422, "Invalid", f"patch: Invalid value: {error.message}", {"causes": [cause]}) from error
        self._check_place(kind, namespace, name, obj)
        return Written(self._updated(kind, old, obj, options))

    def scale(self, kind: Kind, old: Object, scale: Object, options: WriteOptions) -> Object:
        """Set the number of replicas of a workload.

        Raises:
            StatusError: the number is refused, or the object changed.
        """
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request(f"spec.replicas: expected an integer, found {replicas!r}")
        given = (scale.get("metadata") or {}).get("resourceVersion")
        if replicas < 0:
            named = Kind("autoscaling", "v1", "Scale", "scales")
            problem = FieldProblem(INVALID, "spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid(named, name_of(old), [problem])
        metadata = {**old["metadata"], "resourceVersion": given or old["metadata"]["resourceVersion"]}
        new = {**old, "metadata": metadata, "spec": {**old["spec"], "replicas": replicas}}
        return self._updated(kind, old, new, WriteOptions(options.manager, options.dry, subresource="scale"))

    def _apply(self, kind: Kind, namespace: str, name: str, config: Any, options: WriteOptions) -> Written:
        if not isinstance(config, dict):
            raise bad_request("the body of an apply patch is not an object")
        if not config.get("apiVersion") or not config.get("kind"):
            raise bad_request(
                f"Object 'Kind' is missing in '{_short(config)}'"
                if not config.get("kind")
                else ("invalid object type: /, Kind=" + str(config.get("kind")))
            )
        obj = self._decoded(kind, config, options, applied=True)
        self._check_place(kind, namespace, name, obj)
        if obj["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        old = self._store.find(kind, namespace, name)
        version = obj["metadata"].get("resourceVersion")
        uid = obj["metadata"].get("uid")
        if uid and (old is None or uid != old["metadata"]["uid"]):
            raise invalid(kind, name, [FieldProblem(INVALID, "metadata.uid", uid, "field is immutable")] * 2)
        if old is not None and version and version != old["metadata"]["resourceVersion"]:
            raise conflict(kind, name)
        if options.unknown and kind.group != _CUSTOM_GROUP:
            what = f"({namespace}/{name}; {kind.api_version}, Kind={kind.name})"
            message = f"failed to create typed patch object {what}: .{options.unknown[0]}: field not declared in schema"
            raise StatusError(500, "", message)
        config = {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "uid")}}
        manager = Manager(options.manager, "Apply", kind.api_version, options.subresource)
        managers = _managers_of(kind, old)
        live, ignored = _owned_part(old), _ignored(options)

        def merged(*, force: bool) -> tuple[Object, Managers]:
            return apply(type_of(kind), managers, manager, live, config, force=force, ignored=ignored, time=now())

        try:
            new, after = merged(force=options.force)
        except ApplyConflict as error:
            allowed = _applied_before(kind, live) if manager.name == _KUBECTL else {}
            conflicts = {
                each: Owned(left, owned.time)
                for each, owned in error.conflicts.items()
                if (left := difference(owned.fields, allowed))
            }
            if conflicts:
                raise _conflict_of(conflicts) from None
            new, after = merged(force=True)
        if manager.name == _KUBECTL and _LAST_APPLIED in (new.get("metadata", {}).get("annotations") or {}):
            annotations = {
                **new["metadata"]["annotations"],
                _LAST_APPLIED: json.dumps(config, separators=(",", ":")) + "\n",
            }
            new = {**new, "metadata": {**new["metadata"], "annotations": annotations}}
        if old is None:
            if options.subresource:  # only the object itself can be created
                self._store.get(kind, namespace, name)
            self._check_namespace(kind, namespace, name)
            return self._new(kind, namespace, new, options, manager, after)
        return Written(self._updated(kind, old, new, options, after))

    def _decoded(self, kind: Kind, body: Any, options: WriteOptions, *, applied: bool = False) -> Object:
        """Return a body as an object with known fields of the right types."""
        if not isinstance(body, dict):
            raise bad_request(f"couldn't get version/kind; json parse error: expected an object, found {_short(body)}")
        version, name = body.get("apiVersion") or kind.api_version, body.get("kind") or kind.name
        if version != kind.api_version:
            raise bad_request(
                f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
            )
        if name != kind.name:
            raise bad_request(f'{name} in version "{kind.version}" cannot be handled as a {kind.name}')
        body = {**body, "apiVersion": version, "kind": name, "metadata": body.get("metadata") or {}}
        decoded = decode(type_of(kind), body, keep_unknown=kind.group == _CUSTOM_GROUP)
        if decoded.mistyped and kind.group == _CUSTOM_GROUP:
            decoded.mistyped = [item for item in decoded.mistyped if item[0].startswith("metadata")]
        handled = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'
        if decoded.mistyped:
            path, what = decoded.mistyped[0]
            if applied and kind.group != _CUSTOM_GROUP:  # the real server finds it while it merges
                raise StatusError(500, "", f"failed to create typed patch object: .{path}: {what}")
            raise bad_request(f"{handled}: json: {what}: {path or 'the object'}")
        options.unknown = decoded.unknown
        if decoded.unknown and applied and kind.group != _CUSTOM_GROUP:
            return dict(decoded.object)
        if decoded.unknown and options.validation == "Strict":
            raise bad_request(f"{handled}: strict decoding error: {unknown_fields(decoded.unknown)}")
        if decoded.unknown and options.validation == "Warn":
            options.warnings += [unknown_fields([path]) for path in decoded.unknown]
        obj: Object = decoded.object
        obj.setdefault("metadata", {})
        return obj

    def _check_place(self, kind: Kind, namespace: str, name: str, obj: Object) -> None:
        metadata = obj["metadata"]
        found = metadata.setdefault("name", name) or name
        if found != name:
            raise bad_request(f"the name of the object ({found}) does not match the name on the URL ({name})")
        if kind.namespaced:
            space = metadata.setdefault("namespace", namespace)
            if space != namespace:
                raise bad_request(
                    f"the namespace of the object ({space}) does not match the namespace on the request ({namespace})"
                )

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        space = self._store.get(NAMESPACE, "", namespace)
        if is_deleting(space):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = forbidden(kind, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise StatusError(error.code, error.reason, error.message, {**(error.details or {}), "causes": [cause]})

    def _new(
        self,
        kind: Kind,
        namespace: str,
        obj: Object,
        options: WriteOptions,
        manager: Manager,
        managers: Managers | None = None,
    ) -> Written:
        """Store a new object."""
        metadata = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "uid")}
        if kind.namespaced:
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generated_name(metadata["generateName"])
        obj = with_defaults(kind, {**obj, "metadata": metadata})
        if kind is SECRET:
            obj = keep_secrets(obj)
        if managers is None:
            managers = after_update(type_of(kind), {}, manager, empty_object(kind), obj, _STATUS, now())
        obj = with_generated(kind, obj)
        admit(self._store, kind, namespace, obj)
        name = name_of(obj)
        if self._store.find(kind, namespace, name) is not None:
            raise already_exists(kind, name)
        obj["metadata"] = {**obj["metadata"], "managedFields": write_managers(managers)}
        if not managers:
            del obj["metadata"]["managedFields"]
        if options.dry:
            return Written(_as_if_stored(kind, obj), created=True)
        if kind is JOB:
            return Written(self._store.create(kind, namespace, obj, prepare=with_job_selector), created=True)
        return Written(self._store.create(kind, namespace, obj), created=True)

    def _updated(
        self, kind: Kind, old: Object, obj: Object, options: WriteOptions, managers: Managers | None = None
    ) -> Object:
        """Store a changed object and return it."""
        namespace, name, is_status = namespace_of(old), name_of(old), options.subresource == "status"
        given = obj["metadata"].get("resourceVersion")
        if given and given != old["metadata"]["resourceVersion"]:
            raise conflict(kind, name)
        uid = obj["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise conflict(kind, name, why)
        new = self._completed(kind, old, obj) if not is_status else _with_status(old, obj)
        if managers is None:
            manager = Manager(options.manager, "Update", kind.api_version, options.subresource)
            before = _given_managers(obj, old) if _names_managers(obj, old) else _managers_of(kind, old)
            time = "" if options.subresource == "scale" else now()  # as Kubernetes records it
            managers = after_update(
                type_of(kind), before, manager, _owned_part(old), _owned_part(new), _ignored(options), time
            )
            if options.subresource == "scale" and not new["spec"]["replicas"]:
                managers.pop(manager, None)  # Kubernetes leaves a number of 0 to nobody
        metadata = dict(new["metadata"])
        metadata.pop("managedFields", None)
        if managers:
            metadata["managedFields"] = write_managers(managers)
        new = {**new, "metadata": metadata}
        if not is_status:
            admit(self._store, kind, namespace, new, old)
        if options.dry:
            return _as_if_replaced(old, new)
        return self._store.replace(kind, namespace, name, new, status=is_status)

    def _completed(self, kind: Kind, old: Object, obj: Object) -> Object:
        """Return a new version with defaults, and with what only the server sets."""
        new = with_defaults(kind, obj)
        if kind is SECRET:
            new = keep_secrets(new)
        if kind is NAMESPACE and "spec" not in new:
            new["spec"] = old.get("spec", {})
        if kind is SERVICE:
            new = with_generated(kind, new, old)
        if kind is JOB and "selector" not in (new.get("spec") or {}) and "selector" in old["spec"]:
            new["spec"]["selector"] = old["spec"]["selector"]
        if "status" in old:
            new["status"] = old["status"]
        return new


def _patched(kind: Kind, old: Object, type_: str, change: Any) -> Any:
    if type_ == patches.JSON:
        return _json_patched(old, change)
    if not isinstance(change, dict):
        raise bad_request(f"the patch is not an object: found {_short(change)}")
    if type_ == patches.MERGE:
        return patches.merge(old, change)
    try:
        return patches.strategic_merge(type_of(kind), old, change)
    except patches.PatchError as error:
        raise StatusError(500, "", str(error)) from error


def _json_patched(old: Object, change: Any) -> Any:
    if change is None:  # an empty list, as Go's clients write it
        return old
    if not isinstance(change, list):
        raise bad_request(f"error decoding patch: expected a list of operations, found {_short(change)}")
    # Kubernetes' library adds a field that an operation `replace` does not find.
    change = [
        {**step, "op": "add"}
        if isinstance(step, dict)
        and step.get("op") == "replace"
        and not str(step.get("path", "")).endswith("/-")
        and _is_missing(old, step.get("path"))
        else step
        for step in change
    ]
    try:
        return jsonpatch.JsonPatch(change).apply(old)
    except jsonpatch.JsonPatchTestFailed as error:
        raise StatusError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}", {}
        ) from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        raise StatusError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}", {}
        ) from error


def _is_missing(obj: Any, pointer: Any) -> bool:
    """Return whether a JSON pointer names a field that an object lacks."""
    for word in str(pointer).split("/")[1:]:
        if not isinstance(obj, dict):
            return False
        key = word.replace("~1", "/").replace("~0", "~")
        if key not in obj:
            return True
        obj = obj[key]
    return False


def _ignored(options: WriteOptions) -> FieldSet:
    if options.subresource == "status":
        return {"f:spec": {}, "f:metadata": {}}
    return _STATUS


def _managers_of(kind: Kind, old: Object | None) -> Managers:
    return (read_managers(old["metadata"].get("managedFields")) or {}) if old is not None else {}


def _names_managers(obj: Object, old: Object) -> bool:
    """Return whether a request changes `managedFields`, as clients do that migrate or reset them."""
    given = obj["metadata"].get("managedFields")
    return bool(given) and given != old["metadata"].get("managedFields")


def _given_managers(obj: Object, old: Object) -> Managers:
    given = obj["metadata"]["managedFields"]
    if given == [{}]:
        return {}
    found = read_managers(given)
    return found if found is not None else read_managers(old["metadata"].get("managedFields")) or {}


def _owned_part(obj: Object | None) -> Object:
    """Return an object without the fields that nobody owns."""
    if obj is None:
        return {}
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key not in ("managedFields",)}
    return {**obj, "metadata": metadata}


def _applied_before(kind: Kind, live: Object) -> FieldSet:
    """Return the fields that kubectl applied from the client and that nobody changed since.

    kubectl may take them over when it begins to apply from the server.
    """
    text = (live.get("metadata", {}).get("annotations") or {}).get(_LAST_APPLIED)
    try:
        applied = json.loads(text or "{}")
    except ValueError:
        return {}
    type_ = type_of(kind)
    comparison = compare(type_, applied, live)
    changed = union(union(comparison.modified, comparison.added), comparison.removed)
    return difference(fields_of(type_, applied), changed)


def _with_status(old: Object, obj: Object) -> Object:
    new = {key: value for key, value in old.items() if key != "status"}
    return {**new, "status": obj["status"]} if "status" in obj else new


_SERVER_METADATA = (
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def _as_if_stored(kind: Kind, obj: Object) -> Object:
    """Return the answer to a dry run that would create an object."""
    metadata = {**obj["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": now()}
    if kind.name not in WITHOUT_GENERATION:
        metadata["generation"] = 1
    made = {**obj, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    return with_job_selector(made, metadata["uid"]) if kind is JOB else made


def _as_if_replaced(old: Object, new: Object) -> Object:
    kept = {key: old["metadata"][key] for key in _SERVER_METADATA if key in old["metadata"]}
    return {**new, "metadata": {**new["metadata"], **kept}}


def _conflict_of(conflicts: Managers) -> StatusError:
    """Return the error for an apply that other managers' fields forbid (409)."""
    causes, lines = [], []
    for manager, owned in conflicts.items():
        part = f' with subresource "{manager.subresource}"' if manager.subresource else ""
        at = f" at {owned.time}" if manager.operation == "Update" and owned.time else ""
        text = f'"{manager.name}"{part} using {manager.api_version}{at}'
        fields = list(paths(owned.fields))
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {text}", "field": path} for path in fields
        ]
        if len(fields) == 1:
            lines.append(f"conflict with {text}: {fields[0]}")
        else:
            lines.append(f"conflicts with {text}:\n" + "\n".join(f"- {path}" for path in fields))
    count = len(causes)
    what = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: " + "\n".join(lines)
    return StatusError(409, "Conflict", what, {"causes": causes})


def _short(value: Any) -> str:
    return json.dumps(value)[:100]
