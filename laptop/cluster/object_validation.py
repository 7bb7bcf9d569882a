"""Validation of decoded manifests by the rules of the Kubernetes API. Pure functions.

Every problem has the field, the type and the wording of Kubernetes, so that a manifest is refused here as it would be
refused there. Only what this project's kinds of object need is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from laptop.cluster.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    INGRESS,
    JOB,
    NAMESPACE,
    POD,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    ROLLOUT,
    SECRET,
    SERVICE,
    Kind,
)
from laptop.cluster.refusals import (
    DUPLICATE,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    NOT_SUPPORTED,
    REQUIRED,
    FieldProblem,
)
from laptop.cluster.selectors import matches
from laptop.cluster.typed_schemas import FieldType, type_of

_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]+")

_SAYS_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SAYS_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SAYS_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SAYS_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SAYS_NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
NOT_NEGATIVE = "must be greater than or equal to 0"
"""Detail of a problem with a negative number."""

_PORT_RANGE = "must be between 1 and 65535, inclusive"
_FINALIZERS = ("foregroundDeletion", "kubernetes", "orphan")
_FREE_NAMES = (ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)  # path segments, such as `system:node`


def validate(kind: Kind, obj: dict[str, Any]) -> list[FieldProblem]:
    """Return the problems of a manifest with defaults; [] if it is valid."""
    found = list(_metadata(kind, obj.get("metadata") or {}))
    if kind.group == ROLLOUT.group:
        return found
    own = _BY_KIND.get(kind.name)
    found += own(obj) if own is not None else ()
    seen = {problem.field for problem in found}
    found += [
        problem
        for problem in _required(type_of(kind), obj, "")
        if problem.field not in seen and not problem.field.startswith("metadata.")
    ]
    return found


def required_fields(kind: Kind, obj: dict[str, Any]) -> list[FieldProblem]:
    """Return the required fields that a custom resource lacks."""
    return list(_required(type_of(kind), obj, ""))


def _required(type_: FieldType, value: Any, path: str) -> Iterator[FieldProblem]:
    if isinstance(value, dict):
        if type_.is_struct:
            for name in type_.required:
                if value.get(name) is None and name not in ("status", "rules", "resources"):
                    yield FieldProblem(REQUIRED, f"{path}.{name}" if path else name)
        for name, item in value.items():
            inner = type_.field(name) if type_.form == "object" else None
            if inner is not None and inner.form in ("object", "list"):
                yield from _required(inner, item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and type_.element is not None and type_.element.form == "object":
        for index, item in enumerate(value):
            yield from _required(type_.element, item, f"{path}[{index}]")


# Metadata


def _metadata(kind: Kind, metadata: Mapping[str, Any]) -> Iterator[FieldProblem]:
    name = str(metadata.get("name") or "")
    if not name:
        yield FieldProblem(REQUIRED, "metadata.name", detail="name or generateName is required")
    else:
        yield from _name(kind, name)
    for key in ("labels", "annotations"):
        for label, value in (metadata.get(key) or {}).items():
            yield from _qualified(str(label).lower() if key == "annotations" else str(label), f"metadata.{key}", label)
            if key == "labels":
                yield from _label_value(str(value), "metadata.labels")
    owners = metadata.get("ownerReferences") or ()
    if sum(owner.get("controller") is True for owner in owners) > 1:
        says = "Only one reference can have Controller set to true"
        yield FieldProblem(INVALID, "metadata.ownerReferences", owners, says)
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        if "/" not in finalizer and finalizer not in _FINALIZERS:
            says = "name is neither a standard finalizer name nor is it fully qualified"
            yield FieldProblem(INVALID, f"metadata.finalizers[{index}]", finalizer, says)
    for owner in owners:
        for field, what in (("apiVersion", "version must not be empty"), ("kind", ""), ("name", ""), ("uid", "")):
            if not owner.get(field):
                detail = what or f"{'must not be empty' if field == 'kind' else field + ' must not be empty'}"
                yield FieldProblem(INVALID, f"metadata.ownerReferences.{field}", owner.get(field, ""), detail)


def _name(kind: Kind, name: str) -> Iterator[FieldProblem]:
    if kind in _FREE_NAMES:
        if "/" in name or "%" in name or name in (".", ".."):
            yield FieldProblem(
                INVALID, "metadata.name", name, "may not contain '/'" if "/" in name else "may not be '.'"
            )
        return
    form, says, longest = _SUBDOMAIN, _SAYS_SUBDOMAIN, 253
    if kind is NAMESPACE:
        form, says, longest = _LABEL_1123, _SAYS_LABEL, 63
    elif kind is SERVICE:
        form, says, longest = _LABEL_1035, _SAYS_1035, 63
    if len(name) > longest:
        yield FieldProblem(INVALID, "metadata.name", name, f"must be no more than {longest} bytes")
    if not form.fullmatch(name):
        yield FieldProblem(INVALID, "metadata.name", name, says)
    if kind is CRON_JOB and len(name) > 52:
        yield FieldProblem(INVALID, "metadata.name", name, "must be no more than 52 characters")


def _qualified(key: str, path: str, shown: Any) -> Iterator[FieldProblem]:
    prefix, slash, part = key.rpartition("/")
    if slash and not prefix:
        yield FieldProblem(INVALID, path, shown, "prefix part must be non-empty")
    elif slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        yield FieldProblem(INVALID, path, shown, f"prefix part {_SAYS_SUBDOMAIN}")
    if not part:
        yield FieldProblem(INVALID, path, shown, "name part must be non-empty")
    elif len(part) > 63:
        yield FieldProblem(INVALID, path, shown, "name part must be no more than 63 bytes")
    if not _NAME_PART.fullmatch(part):
        yield FieldProblem(INVALID, path, shown, _SAYS_NAME_PART)


def _label_value(value: str, path: str) -> Iterator[FieldProblem]:
    if len(value) > 63:
        yield FieldProblem(INVALID, path, value, "must be no more than 63 bytes")
    if value and not _NAME_PART.fullmatch(value):
        yield FieldProblem(INVALID, path, value, _SAYS_VALUE)


# Kinds


def _config_map(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    yield from _data_keys(obj)
    for key in (obj.get("data") or {}).keys() & (obj.get("binaryData") or {}).keys():
        yield FieldProblem(INVALID, f"data[{key}]", key, "duplicate of key present in binaryData")


def _secret(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    yield from _data_keys(obj)
    needed = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",)}
    for key in needed.get(str(obj.get("type")), ()):
        if key not in (obj.get("data") or {}):
            yield FieldProblem(REQUIRED, f"data[{key}]")


def _data_keys(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    for part in ("data", "binaryData"):
        for key in obj.get(part) or {}:
            if len(key) > 253:
                yield FieldProblem(INVALID, f"{part}[{key}]", key, "must be no more than 253 bytes")
            if not _KEY.fullmatch(key):
                says = (
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
                    "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                )
                yield FieldProblem(INVALID, f"{part}[{key}]", key, says)


def _deployment(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    yield from _negative(spec, "spec", ("replicas", "minReadySeconds", "revisionHistoryLimit"))
    yield from selected_template_problems(spec, "Always")
    type_ = (spec.get("strategy") or {}).get("type")
    if type_ not in ("RollingUpdate", "Recreate"):
        yield _unsupported("spec.strategy", type_, ("Recreate", "RollingUpdate"))
    if type_ == "Recreate" and (spec.get("strategy") or {}).get("rollingUpdate"):
        says = "may not be specified when strategy `type` is 'Recreate'"
        yield FieldProblem(FORBIDDEN, "spec.strategy.rollingUpdate", detail=says)
    if (spec.get("progressDeadlineSeconds") or 0) <= (spec.get("minReadySeconds") or 0):
        yield FieldProblem(
            INVALID,
            "spec.progressDeadlineSeconds",
            spec.get("progressDeadlineSeconds"),
            "must be greater than minReadySeconds",
        )


def _replica_set(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    yield from _negative(spec, "spec", ("replicas", "minReadySeconds"))
    yield from selected_template_problems(spec, "Always")


def selected_template_problems(spec: Mapping[str, Any], policy: str) -> Iterator[FieldProblem]:
    """Yield the problems of a pod template and of the selector of its pods.

    Args:
        spec: `spec` of what makes the pods, with defaults.
        policy: restart policy that the pods must have.
    """
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        yield FieldProblem(REQUIRED, "spec.selector")
    else:
        yield from _selector(selector, "spec.selector")
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            yield FieldProblem(INVALID, "spec.selector", selector, "empty selector is invalid for deployment")
    if not labels or selector is None or not matches(selector, labels):
        shown = dict(sorted(labels.items()))  # as Go writes maps
        yield FieldProblem(
            INVALID, "spec.template.metadata.labels", shown, "`selector` does not match template `labels`"
        )
    yield from _template(template, "spec.template")
    found = (template.get("spec") or {}).get("restartPolicy")
    if found != policy:
        yield _unsupported("spec.template.spec.restartPolicy", found, (policy,))


def _selector(selector: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield from _qualified(key, f"{path}.matchLabels", key)
        yield from _label_value(value, f"{path}.matchLabels")
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        here, operator = f"{path}.matchExpressions[{index}]", term.get("operator")
        if operator in ("In", "NotIn"):
            if not term.get("values"):
                says = "must be specified when `operator` is 'In' or 'NotIn'"
                yield FieldProblem(REQUIRED, f"{here}.values", detail=says)
        elif operator in ("Exists", "DoesNotExist"):
            if term.get("values"):
                says = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield FieldProblem(FORBIDDEN, f"{here}.values", detail=says)
        else:
            yield FieldProblem(INVALID, f"{here}.operator", operator, "not a valid selector operator")


def _job(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    yield from _job_spec(obj.get("spec") or {}, "spec")


def _job_spec(spec: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    counts = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
    yield from _negative(spec, path, counts)
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        yield _unsupported(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
    template = spec.get("template") or {}
    yield from _template(template, f"{path}.template")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        says = 'valid values: "OnFailure", "Never"'
        yield FieldProblem(REQUIRED, f"{path}.template.spec.restartPolicy", detail=says)


def _cron_job(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    from laptop.cluster.schedules import ScheduleError, parse_schedule

    spec = obj.get("spec") or {}
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    if not schedule:
        yield FieldProblem(REQUIRED, "spec.schedule")
    else:
        try:
            parse_schedule(str(schedule), None)
        except ScheduleError as error:
            yield FieldProblem(INVALID, "spec.schedule", schedule, str(error))
        else:
            try:
                parse_schedule(str(schedule), zone)
            except ScheduleError as error:
                yield FieldProblem(INVALID, "spec.timeZone", zone, str(error))
    policies = ("Allow", "Forbid", "Replace")
    if spec.get("concurrencyPolicy") not in policies:
        yield _unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
    yield from _negative(
        spec, "spec", ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    )
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    yield from _job_spec(job, "spec.jobTemplate.spec")


def _service(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in types:
        yield _unsupported("spec.type", spec.get("type"), types)
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield FieldProblem(REQUIRED, "spec.ports")
    if spec.get("sessionAffinity") not in ("ClientIP", "None"):
        yield _unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    for key, value in (spec.get("selector") or {}).items():
        yield from _qualified(key, "spec.selector", key)
        yield from _label_value(value, "spec.selector")
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = port.get("name")
        if not name and len(ports) > 1:
            yield FieldProblem(REQUIRED, f"{here}.name")
        elif name:
            if not _LABEL_1123.fullmatch(name):
                yield FieldProblem(INVALID, f"{here}.name", name, _SAYS_LABEL)
            if name in names:
                yield FieldProblem(DUPLICATE, f"{here}.name", name)
            names.add(name)
        yield from _port(port.get("port"), f"{here}.port")
        target = port.get("targetPort")
        if isinstance(target, str):
            yield from _port_name(target, f"{here}.targetPort")
        elif target is not None:
            yield from _port(target, f"{here}.targetPort")
        yield from _protocol(port.get("protocol"), f"{here}.protocol")
        if (port.get("protocol"), port.get("port")) in seen:
            yield FieldProblem(DUPLICATE, here, {"port": port.get("port"), "protocol": port.get("protocol")})
        seen.add((port.get("protocol"), port.get("port")))


def _ingress(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        yield FieldProblem(INVALID, "spec", spec, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        yield from _backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        here, host = f"spec.rules[{index}]", rule.get("host")
        if host and not _SUBDOMAIN.fullmatch(host.removeprefix("*.")):
            yield FieldProblem(INVALID, f"{here}.host", host, _SAYS_SUBDOMAIN)
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            yield FieldProblem(REQUIRED, f"{here}.http.paths")
        for number, path in enumerate((http or {}).get("paths") or ()):
            where = f"{here}.http.paths[{number}]"
            types = ("Exact", "ImplementationSpecific", "Prefix")
            if path.get("pathType") is None:
                yield FieldProblem(REQUIRED, f"{where}.pathType", detail="pathType must be specified")
            elif path["pathType"] not in types:
                yield _unsupported(f"{where}.pathType", path["pathType"], types)
            elif path["pathType"] != "ImplementationSpecific" and not str(path.get("path", "")).startswith("/"):
                yield FieldProblem(INVALID, f"{where}.path", path.get("path", ""), "must be an absolute path")
            yield from _backend(path.get("backend") or {}, f"{where}.backend")


def _backend(backend: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    service, resource = backend.get("service"), backend.get("resource")
    if service and resource:
        yield FieldProblem(INVALID, path, "", "cannot set both resource and service backends")
    elif service is not None:
        if not service.get("name"):
            yield FieldProblem(REQUIRED, f"{path}.service.name")
        port = service.get("port") or {}
        if port.get("name") and port.get("number"):
            yield FieldProblem(INVALID, path, "", "cannot set both port name & port number")
        elif port.get("name"):
            yield from _port_name(port["name"], f"{path}.service.port.name")
        elif port.get("number"):
            yield from _port(port["number"], f"{path}.service.port.number")
        else:
            yield FieldProblem(REQUIRED, path, detail="port name or number is required")
    elif resource is None:
        yield FieldProblem(REQUIRED, path, detail="service or resource backend is required")


def _autoscaler(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas") or 0
    if least < 1:
        yield FieldProblem(INVALID, "spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield FieldProblem(INVALID, "spec.maxReplicas", most, "must be greater than 0")
    if most < least:
        yield FieldProblem(INVALID, "spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        if not target.get(name):
            yield FieldProblem(REQUIRED, f"spec.scaleTargetRef.{name}")


def _disruption_budget(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield FieldProblem(INVALID, "spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        value = spec.get(name)
        if isinstance(value, int) and value < 0:
            yield FieldProblem(INVALID, f"spec.{name}", value, NOT_NEGATIVE)
        elif isinstance(value, str) and not re.fullmatch(r"\d+%", value):
            says = "a valid percent string must be a numeric string followed by an ending '%'"
            yield FieldProblem(
                INVALID, f"spec.{name}", value, f"{says} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            )
    if spec.get("selector") is not None:
        yield from _selector(spec["selector"], "spec.selector")


def _network_policy(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    spec = obj.get("spec") or {}
    yield from _selector(spec.get("podSelector") or {}, "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            for number, peer in enumerate(rule.get(peers) or ()):
                here = f"spec.{direction}[{index}].{peers}[{number}]"
                if not peer:
                    yield FieldProblem(REQUIRED, here, detail="must specify a peer")
                block = peer.get("ipBlock")
                if block and not re.fullmatch(r"[\d.]+/\d+|[\da-fA-F:.]+/\d+", str(block.get("cidr", ""))):
                    says = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                    yield FieldProblem(INVALID, f"{here}.ipBlock.cidr", block.get("cidr", ""), says)
            for number, port in enumerate(rule.get("ports") or ()):
                here = f"spec.{direction}[{index}].ports[{number}]"
                yield from _protocol(port.get("protocol"), f"{here}.protocol")
                if isinstance(port.get("port"), int):
                    yield from _port(port["port"], f"{here}.port")
    for index, type_ in enumerate(spec.get("policyTypes") or ()):
        if type_ not in ("Egress", "Ingress"):
            yield _unsupported(f"spec.policyTypes[{index}]", type_, ("Egress", "Ingress"))


def _quota(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    for name, value in ((obj.get("spec") or {}).get("hard") or {}).items():
        if "/" not in name and name not in _QUOTA_NAMES and not name.startswith(("count/", "requests.", "limits.")):
            yield FieldProblem(
                INVALID, f"spec.hard[{name}]", name, "must be a standard resource type or fully qualified"
            )
            yield FieldProblem(INVALID, f"spec.hard[{name}]", name, "must be a standard resource for quota")
        yield from _quantity(value, f"spec.hard[{name}]")


_QUOTA_NAMES = {
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
}


def _roles(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    for index, rule in enumerate(obj.get("rules") or ()):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            yield FieldProblem(REQUIRED, f"{here}.verbs", detail="verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            continue
        if not rule.get("apiGroups"):
            yield FieldProblem(
                REQUIRED, f"{here}.apiGroups", detail="resource rules must supply at least one api group"
            )
        if not rule.get("resources"):
            yield FieldProblem(REQUIRED, f"{here}.resources", detail="resource rules must supply at least one resource")


def _bindings(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    role = obj.get("roleRef") or {}
    kinds = ("ClusterRole",) if obj.get("kind") == CLUSTER_ROLE_BINDING.name else ("ClusterRole", "Role")
    if role.get("kind") not in kinds:
        yield _unsupported("roleRef.kind", role.get("kind", ""), kinds)
    if not role.get("name"):
        yield FieldProblem(REQUIRED, "roleRef.name")
    for index, subject in enumerate(obj.get("subjects") or ()):
        here = f"subjects[{index}]"
        if not subject.get("name"):
            yield FieldProblem(REQUIRED, f"{here}.name")
        kind = subject.get("kind")
        if kind == "ServiceAccount":
            if not subject.get("namespace"):
                yield FieldProblem(REQUIRED, f"{here}.namespace")
        elif kind not in ("User", "Group"):
            yield _unsupported(f"{here}.kind", kind, ("ServiceAccount", "User", "Group"))


# Pods


def _pod(obj: Mapping[str, Any]) -> Iterator[FieldProblem]:
    yield from _pod_spec(obj.get("spec") or {}, "spec")


def _template(template: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    for key, value in ((template.get("metadata") or {}).get("labels") or {}).items():
        yield from _qualified(key, f"{path}.labels", key)
        yield from _label_value(value, f"{path}.labels")
    yield from _pod_spec(template.get("spec") or {}, f"{path}.spec")


def _pod_spec(spec: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    volumes = [volume.get("name", "") for volume in spec.get("volumes") or ()]
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _volume(volume, f"{path}.volumes[{index}]", volumes[:index])
    if not spec.get("containers"):
        yield FieldProblem(REQUIRED, f"{path}.containers")
    names: set[str] = set()
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            here = f"{path}.{key}[{index}]"
            yield from _container(container, here, volumes)
            if container.get("name") in names:
                yield FieldProblem(DUPLICATE, f"{here}.name", container["name"])
            names.add(container.get("name", ""))
    policies = ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy") not in policies:
        yield _unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), policies)
    dns = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    if spec.get("dnsPolicy") not in dns:
        yield _unsupported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), dns)
    account = spec.get("serviceAccountName")
    if account and not _SUBDOMAIN.fullmatch(account):
        yield FieldProblem(INVALID, f"{path}.serviceAccountName", account, _SAYS_SUBDOMAIN)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2147483647:
        yield FieldProblem(
            INVALID, f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"
        )
    yield from _negative(spec, path, ("terminationGracePeriodSeconds",))


def _volume(volume: Mapping[str, Any], path: str, before: list[str]) -> Iterator[FieldProblem]:
    name = volume.get("name", "")
    if not name:
        yield FieldProblem(REQUIRED, f"{path}.name")
    elif not _LABEL_1123.fullmatch(name):
        yield FieldProblem(INVALID, f"{path}.name", name, _SAYS_LABEL)
    elif name in before:
        yield FieldProblem(DUPLICATE, f"{path}.name", name)
    if len(volume) > 2:
        for extra in list(volume)[2:]:
            yield FieldProblem(FORBIDDEN, f"{path}.{extra}", detail="may not specify more than 1 volume type")
    if isinstance(volume.get("secret"), dict) and not volume["secret"].get("secretName"):
        yield FieldProblem(REQUIRED, f"{path}.secret.secretName")
    if isinstance(volume.get("configMap"), dict) and not volume["configMap"].get("name"):
        yield FieldProblem(REQUIRED, f"{path}.configMap.name")


def _container(container: Mapping[str, Any], path: str, volumes: Iterable[str]) -> Iterator[FieldProblem]:
    name, image = container.get("name", ""), container.get("image", "")
    if not name:
        yield FieldProblem(REQUIRED, f"{path}.name")
    elif not _LABEL_1123.fullmatch(name):
        yield FieldProblem(INVALID, f"{path}.name", name, _SAYS_LABEL)
    if not image:
        yield FieldProblem(REQUIRED, f"{path}.image")
    elif image != image.strip():
        yield FieldProblem(INVALID, f"{path}.image", image, "must not have leading or trailing whitespace")
    policies = ("Always", "IfNotPresent", "Never")
    if container.get("imagePullPolicy") not in policies:
        yield _unsupported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), policies)
    yield from _container_ports(container.get("ports") or (), f"{path}.ports")
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, f"{path}.env[{index}]")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        here = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield FieldProblem(REQUIRED, f"{here}.name")
        elif mount["name"] not in volumes:
            yield FieldProblem(NOT_FOUND, f"{here}.name", mount["name"])
        if not mount.get("mountPath"):
            yield FieldProblem(REQUIRED, f"{here}.mountPath")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(probe), dict):
            yield from _probe(container[probe], f"{path}.{probe}", is_readiness=probe == "readinessProbe")
    yield from _resources(container.get("resources") or {}, f"{path}.resources")


def _container_ports(ports: Iterable[Mapping[str, Any]], path: str) -> Iterator[FieldProblem]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name")
        if name:
            yield from _port_name(name, f"{here}.name")
            if name in names:
                yield FieldProblem(DUPLICATE, f"{here}.name", name)
            names.add(name)
        if not port.get("containerPort"):
            yield FieldProblem(REQUIRED, f"{here}.containerPort")
        else:
            yield from _port(port["containerPort"], f"{here}.containerPort")
        yield from _protocol(port.get("protocol"), f"{here}.protocol")


def _variable(variable: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    name, source = variable.get("name", ""), variable.get("valueFrom")
    if not name:
        yield FieldProblem(REQUIRED, f"{path}.name")
    elif not _VARIABLE.fullmatch(name):
        yield FieldProblem(
            INVALID,
            f"{path}.name",
            name,
            "environment variable name must consist only of printable ASCII characters other than '='",
        )
    if isinstance(source, dict):
        if variable.get("value"):
            yield FieldProblem(INVALID, f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
        elif not source:
            says = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            )
            yield FieldProblem(INVALID, f"{path}.valueFrom", "", says)
        elif len(source) > 1:
            yield FieldProblem(INVALID, f"{path}.valueFrom", "", "may not have more than one field specified at a time")
        for reference in ("configMapKeyRef", "secretKeyRef"):
            if isinstance(source.get(reference), dict):
                for field in ("name", "key"):
                    if not source[reference].get(field):
                        yield FieldProblem(REQUIRED, f"{path}.valueFrom.{reference}.{field}")


def _probe(probe: Mapping[str, Any], path: str, *, is_readiness: bool) -> Iterator[FieldProblem]:
    handlers = [key for key in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(key) is not None]
    if not handlers:
        yield FieldProblem(REQUIRED, path, detail="must specify a handler type")
    for extra in handlers[1:]:
        yield FieldProblem(FORBIDDEN, f"{path}.{extra}", detail="may not specify more than 1 handler type")
    if isinstance(probe.get("httpGet"), dict):
        port = probe["httpGet"].get("port")
        if isinstance(port, str):
            yield from _port_name(port, f"{path}.httpGet.port")
        else:
            yield from _port(port or 0, f"{path}.httpGet.port")
        if probe["httpGet"].get("scheme") not in ("HTTP", "HTTPS"):
            yield _unsupported(f"{path}.httpGet.scheme", probe["httpGet"].get("scheme"), ("HTTP", "HTTPS"))
    yield from _negative(
        probe, path, ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
    )
    if not is_readiness and probe.get("successThreshold") not in (None, 1):
        yield FieldProblem(INVALID, f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _resources(resources: Mapping[str, Any], path: str) -> Iterator[FieldProblem]:
    for part in ("limits", "requests"):
        for name, value in (resources.get(part) or {}).items():
            yield from _quantity(value, f"{path}.{part}[{name}]")
            known = ("cpu", "memory", "ephemeral-storage")
            if "/" not in name and name not in known and not name.startswith("hugepages-"):
                says = "must be a standard resource type or fully qualified"
                yield FieldProblem(INVALID, f"{path}.{part}[{name}]", name, says)
                yield FieldProblem(
                    INVALID, f"{path}.{part}[{name}]", name, "must be a standard resource for containers"
                )
    for name, value in (resources.get("requests") or {}).items():
        limit = (resources.get("limits") or {}).get(name)
        if limit is not None and _amount(value) > _amount(limit):
            says = f"must be less than or equal to {name} limit of {limit}"
            yield FieldProblem(INVALID, f"{path}.requests", str(value), says)


# Values


def _negative(spec: Mapping[str, Any], path: str, names: Iterable[str]) -> Iterator[FieldProblem]:
    for name in names:
        value = spec.get(name)
        if isinstance(value, int) and value < 0:
            yield FieldProblem(INVALID, f"{path}.{name}", value, NOT_NEGATIVE)


def _port(value: Any, path: str) -> Iterator[FieldProblem]:
    if not isinstance(value, int) or not 1 <= value <= 65535:
        yield FieldProblem(INVALID, path, 0 if value is None else value, _PORT_RANGE)


def _port_name(name: str, path: str) -> Iterator[FieldProblem]:
    if len(name) > 15:
        yield FieldProblem(INVALID, path, name, "must be no more than 15 characters")
    elif not _PORT_NAME.fullmatch(name):
        letters = re.search("[a-z]", name)
        says = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
        yield FieldProblem(INVALID, path, name, says if letters else "must contain at least one letter (a-z)")


def _protocol(value: Any, path: str) -> Iterator[FieldProblem]:
    if value not in ("SCTP", "TCP", "UDP"):
        yield _unsupported(path, value, ("SCTP", "TCP", "UDP"))


def _quantity(value: Any, path: str) -> Iterator[FieldProblem]:
    if str(value).startswith("-"):
        yield FieldProblem(INVALID, path, str(value), NOT_NEGATIVE)


def is_quantity(value: Any) -> bool:
    """Return whether a value is a quantity, such as `500m` or `2Gi`."""
    return bool(_QUANTITY.fullmatch(str(value)))


def _amount(value: Any) -> float:
    match = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([a-zA-Z]*)", str(value))
    if match is None:
        return 0.0
    powers = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
    tens = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    return float(match[1]) * (powers | tens).get(match[2], 1.0)


def _unsupported(path: str, value: Any, known: Iterable[str]) -> FieldProblem:
    shown = ", ".join(f'"{name}"' for name in known)
    return FieldProblem(NOT_SUPPORTED, path, value, f"supported values: {shown}")


_BY_KIND = {
    CLUSTER_ROLE.name: _roles,
    CLUSTER_ROLE_BINDING.name: _bindings,
    CONFIG_MAP.name: _config_map,
    CRON_JOB.name: _cron_job,
    DEPLOYMENT.name: _deployment,
    "HorizontalPodAutoscaler": _autoscaler,
    INGRESS.name: _ingress,
    JOB.name: _job,
    "NetworkPolicy": _network_policy,
    "PodDisruptionBudget": _disruption_budget,
    POD.name: _pod,
    REPLICA_SET.name: _replica_set,
    "ResourceQuota": _quota,
    ROLE.name: _roles,
    ROLE_BINDING.name: _bindings,
    SECRET.name: _secret,
    SERVICE.name: _service,
}
