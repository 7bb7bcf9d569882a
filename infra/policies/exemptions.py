"""Exemptions from rules, declared with their reasons on the component that contains the exempt resource.

They are inputs of that component, so every user of the rules (tests, engine, policy pack) reads them from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROPERTY = "exemptions"


def exemptions(reasons: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the inputs of a component whose children are exempt from rules.

    Args:
        reasons: rule id → reason for the exemption.
    """
    return {PROPERTY: dict(reasons)} if reasons else None
