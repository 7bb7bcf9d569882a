"""Where the pod template of a workload stands, and the hash that names a version of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from laptop.cluster.kinds import CRON_JOB, DEPLOYMENT, JOB, POD, REPLICA_SET, ROLLOUT, Kind

# Kubernetes' own alphabet for such hashes: no vowels, no look-alikes.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def pod_spec_of(kind: Kind, obj: dict[str, Any]) -> dict[str, Any] | None:
    """The pod spec inside a manifest of a workload, or None for a kind that runs no pods."""
    spec = obj.get("spec") or {}
    if kind == POD:
        return dict(spec)
    if kind == CRON_JOB:
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    elif kind not in (JOB, DEPLOYMENT, REPLICA_SET, ROLLOUT):
        return None
    return dict((spec.get("template") or {}).get("spec") or {})


def template_hash(template: dict[str, Any]) -> str:
    """A short name for a version of a pod template; equal templates have equal hashes."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
