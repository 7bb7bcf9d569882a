"""Columns whose values may be about a person, by the contract's classification."""

from __future__ import annotations

from pipelines.declarations.contract import Column

OPEN_CLASSIFICATIONS = ("public", "internal")
"""Classifications whose values may appear in samples and reports. Any other one, such as `protected`, may not."""

PERSONAL_TAGS = ("pii", "personal", "personal-data", "sensitive")
"""Tags that mark a column whose values may not appear, whatever its classification."""


def is_personal(column: Column) -> bool:
    """Return True if values of a column must not appear in samples, reports or statistics of single rows.

    A classification that we do not know counts as personal: to show too little can be corrected.
    """
    if any(tag.lower() in PERSONAL_TAGS for tag in column.tags):
        return True
    return column.classification is not None and column.classification.strip().lower() not in OPEN_CLASSIFICATIONS
