"""Groups of rows that the inference log names in place of personal values. Imports nothing, for the log's writer."""

from __future__ import annotations

MOST_GROUPS = 50
"""Listed values of a column whose rows still count as groups of people."""

NULL_GROUP = "null"
"""Group of a row without a value."""
