"""What the emulated account cannot hold. This is the whole list; each entry has a test that it is still true.

A type of which nothing is created says so in its row (`Row.recorded`); it stands here too, with the property "".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One thing that is kept in the state and has no effect.

    Attributes:
        type: Pulumi's type token.
        property: the input, or "" for the whole resource.
        reason: what the emulator lacks.
    """

    type: str
    property: str
    reason: str


RECORDED = (
    Recorded(
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        "",
        "the emulator has no EKS Pod Identity; the small cluster's agent reads the association from a file",
    ),
    Recorded(
        "aws:s3/bucketPolicy:BucketPolicy",
        "policy",
        "a condition on aws:SecureTransport is kept and judged, but never bites: requests stay on the loopback "
        "device and count as secure",
    ),
    Recorded(
        "aws:s3/bucketNotification:BucketNotification",
        "eventbridge",
        "the emulator takes it and does not tell, so its drift is not seen",
    ),
    Recorded("aws:kms/key:Key", "rotationPeriodInDays", "the emulator rotates by the year, if at all"),
    Recorded(
        "aws:kms/key:Key",
        "bypassPolicyLockoutSafetyCheck",
        "the emulator never checks whether a key policy locks its owner out",
    ),
    Recorded("aws:ecr/repository:Repository", "imageScanningConfiguration", "the emulator scans no image"),
    Recorded("aws:cloudwatch/metricAlarm:MetricAlarm", "threshold", "the emulator compares no metric with an alarm"),
)


def recorded_properties(type_: str, inputs: Mapping[str, Any]) -> tuple[Recorded, ...]:
    """The entries that apply to a resource with these inputs, the whole-resource ones included."""
    return tuple(entry for entry in RECORDED if entry.type == type_ and (not entry.property or _applies(entry, inputs)))


def _applies(entry: Recorded, inputs: Mapping[str, Any]) -> bool:
    value = inputs.get(entry.property)
    if entry.type == "aws:s3/bucketPolicy:BucketPolicy":
        return "aws:securetransport" in (value if isinstance(value, str) else json.dumps(value)).lower()
    return value not in (None, False)
