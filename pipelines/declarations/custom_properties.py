"""Parts that every element of a data contract may have: custom properties and references to definitions."""

from __future__ import annotations

from typing import Any

from pipelines.declarations.documents import Declaration

Descriptions = tuple[dict[str, Any], ...]
"""List of objects that only describe: accepted unread."""


class CustomProperty(Declaration):
    """Key and value that the standard does not define."""

    id: str | None = None
    property: str
    value: Any
    description: str | None = None
    vendor: str | None = None
