"""Gaps of the laptop's account: inputs that are kept in the state without effect.

The list is complete, and a test proves each gap. A type of which nothing is created has the property "" here and a
reason in `Row.recorded`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EmulationGap:
    """One input without effect.

    Attributes:
        type: Pulumi's type token.
        property: the input, or "" for the whole resource.
        reason: why it has no effect.
    """

    type: str
    property: str
    reason: str


GAPS = (
    EmulationGap(
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        "",
        "moto has no EKS Pod Identity; the cluster's credentials agent reads the association from a file",
    ),
    EmulationGap(
        "aws:s3/bucketPolicy:BucketPolicy",
        "policy",
        "a condition on aws:SecureTransport always holds: requests stay on the loopback device and count as secure",
    ),
    EmulationGap(
        "aws:s3/bucketNotification:BucketNotification",
        "eventbridge",
        "moto accepts it and never returns it, so its drift is not seen",
    ),
    EmulationGap("aws:kms/key:Key", "rotationPeriodInDays", "moto supports yearly rotation only"),
    EmulationGap(
        "aws:kms/key:Key",
        "bypassPolicyLockoutSafetyCheck",
        "moto never checks whether a key policy locks its owner out",
    ),
    EmulationGap(
        "aws:ecr/repository:Repository", "imageScanningConfiguration", "images are not scanned: a scan finds nothing"
    ),
    EmulationGap("aws:cloudwatch/metricAlarm:MetricAlarm", "threshold", "moto does not evaluate alarms"),
)


def emulation_gaps(type_: str, inputs: Mapping[str, Any]) -> tuple[EmulationGap, ...]:
    """Return the gaps that apply to a resource with these inputs, including those of the whole resource."""
    return tuple(gap for gap in GAPS if gap.type == type_ and (not gap.property or _applies(gap, inputs)))


def _applies(gap: EmulationGap, inputs: Mapping[str, Any]) -> bool:
    value = inputs.get(gap.property)
    if gap.type == "aws:s3/bucketPolicy:BucketPolicy":
        return "aws:securetransport" in (value if isinstance(value, str) else json.dumps(value)).lower()
    return value not in (None, False)
