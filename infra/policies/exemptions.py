"""Exemptions from rules, declared with their reasons on the component that contains the exempt resource.

They are registered outputs of that component. Pulumi gives stack policies the outputs of components, never their
inputs, so this is the one place that every user of the rules (tests, engine, policy pack) can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROPERTY = "exemptions"


def exemptions(reasons: Mapping[str, str]) -> dict[str, Any]:
    """Return the outputs to register for a component whose children are exempt from rules.

    Args:
        reasons: rule id → reason for the exemption.
    """
    return {PROPERTY: dict(reasons)} if reasons else {}
