"""Write `laptop/cluster/protobuf_fields.json`: the fields of Kubernetes' protobuf messages, by number.

Run: `python tools/protobuf_fields.py API APIMACHINERY`, with the folders of the Go modules `k8s.io/api` and
`k8s.io/apimachinery` of the Kubernetes version that the laptop serves.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "laptop" / "cluster" / "protobuf_fields.json"

_ROOTS = {
    "apps.v1": ("Deployment", "ReplicaSet"),
    "authentication.v1": ("SelfSubjectReview", "TokenRequest"),
    "authorization.v1": ("SelfSubjectAccessReview", "SelfSubjectRulesReview"),
    "autoscaling.v1": ("Scale",),
    "autoscaling.v2": ("HorizontalPodAutoscaler",),
    "batch.v1": ("CronJob", "Job"),
    "core.v1": (
        "ConfigMap",
        "Event",
        "LimitRange",
        "Namespace",
        "Pod",
        "ResourceQuota",
        "Secret",
        "Service",
        "ServiceAccount",
    ),
    "meta.v1": ("DeleteOptions",),
    "networking.v1": ("Ingress", "NetworkPolicy"),
    "policy.v1": ("PodDisruptionBudget",),
    "rbac.v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"^  (optional|repeated) ([\w.]+) (\w+) = (\d+);", re.M)
_MAP = re.compile(r"^  map<string, ([\w.]+)> (\w+) = (\d+);", re.M)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_MEMBER = re.compile(
    r'^\s+(\w*)\s*(\*?)[\w.\[\]*]+\s+`json:"([\w-]*)(,inline)?[^"]*".*?(?:protobuf:"\w+,(\d+),[^"]*")?`', re.M
)
_SCALARS = {"string", "int32", "int64", "bool", "bytes", "double", "uint32", "uint64"}


def main() -> int:
    """Run the command line."""
    api, machinery = map(Path, sys.argv[1:])
    files = [*sorted(api.glob("*/*/generated.proto")), machinery / "pkg/apis/meta/v1/generated.proto"]
    messages: dict[str, dict[str, str]] = {}
    for file in files:
        package = f"{file.parent.parent.name}.{file.parent.name}"
        messages |= _messages(package, file.read_text(), _members(file.parent))
    kept: dict[str, dict[str, str]] = {}
    todo = [f"{package}.{name}" for package, names in _ROOTS.items() for name in names]
    while todo:
        name = todo.pop()
        if name in kept or name not in messages:
            continue
        kept[name] = messages[name]
        todo += [word for value in kept[name].values() for word in value.split()[1:2] if "." in word]
    lines = [f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept)]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


def _members(folder: Path) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """Return struct → protobuf number → JSON name, pointer, inline."""
    found: dict[str, dict[str, tuple[str, bool, bool]]] = {}
    for file in folder.glob("*.go"):
        for name, body in _STRUCT.findall(file.read_text()):
            found.setdefault(name, {})
            for _, pointer, json_name, inline, number in _MEMBER.findall(body):
                if number:
                    found[name][number] = (json_name, bool(pointer), bool(inline) or not json_name)
    return found


def _messages(
    package: str, text: str, members: dict[str, dict[str, tuple[str, bool, bool]]]
) -> dict[str, dict[str, str]]:
    """Return message → number → `name type flags`; flags are `*` pointer, `[]` list, `{}` map, `<` inline."""
    result = {}
    for name, body in _MESSAGE.findall(text):
        known, fields = members.get(name, {}), {}
        for label, type_, field, number in _FIELD.findall(body):
            json_name, pointer, inline = known.get(number, (field, False, False))
            flags = ("[]" if label == "repeated" else "") + ("*" if pointer else "") + ("<" if inline else "")
            fields[number] = " ".join(filter(None, (json_name or field, _type(package, type_), flags)))
        for type_, field, number in _MAP.findall(body):
            fields[number] = f"{field} {_type(package, type_)} {{}}"
        result[f"{package}.{name}"] = fields
    return result


def _type(package: str, type_: str) -> str:
    if type_ in _SCALARS:
        return type_
    if type_.startswith("."):
        return ".".join(type_.split(".")[-3:])
    return f"{package}.{type_}"


if __name__ == "__main__":
    sys.exit(main())
