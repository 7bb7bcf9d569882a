"""How a resource says, where it is declared, that it does not keep a rule, and why.

The words travel with the resource graph, as an input of the component that the resource belongs to, so that whoever
judges the graph (the tests, an engine before it applies, the policy pack) reads the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROPERTY = "exemptions"


def exemptions(reasons: Mapping[str, str]) -> dict[str, Any] | None:
    """The inputs of a component whose children are exempt from rules.

    Args:
        reasons: id of the rule → why it cannot or need not be kept here.
    """
    return {PROPERTY: dict(reasons)} if reasons else None
