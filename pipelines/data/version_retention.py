"""Decide which versions of a dataset may expire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.data.versions import TableVersion

KEPT_DAYS = 90
"""Days for which every version is kept, by default."""

AUDIT_DAYS = 400
"""Days for which a version stays that a bundle names after its release or training, by default."""


@dataclass(frozen=True)
class ExpiryPlan:
    """Versions of a dataset that may expire, and the others.

    Attributes:
        expired: versions that nothing needs, the newest first.
        kept: version → why it stays.
    """

    expired: tuple[TableVersion, ...]
    kept: Mapping[str, str]


def plan_expiry(
    versions: Iterable[TableVersion], named: Mapping[str, str], now: datetime, *, keep: timedelta
) -> ExpiryPlan:
    """Decide which versions may expire.

    Args:
        versions: all versions of a dataset, the newest first.
        named: snapshot → the bundle that needs it and why; from every registry that may name the dataset.
        now: the current time.
        keep: age up to which every version stays.
    """
    expired, kept = [], {}
    for version in versions:
        if version.is_current:
            kept[version.snapshot] = "it is the current version"
        elif version.tags:
            kept[version.snapshot] = f"it is tagged {', '.join(version.tags)}"
        elif version.snapshot in named:
            kept[version.snapshot] = named[version.snapshot]
        elif now - version.at < keep:
            kept[version.snapshot] = f"it is younger than {keep.days} days"
        else:
            expired.append(version)
    return ExpiryPlan(tuple(expired), kept)
