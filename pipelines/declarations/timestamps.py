"""Timestamps with a time zone, as declarations and records hold them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

CLOCKS = timedelta(minutes=5)
"""Largest difference between two clocks that is normal. What is dated later than that comes from a wrong clock."""


def with_standard_zone(moment: datetime) -> datetime:
    """Return the same time with the same offset, as a zone of Python's standard library.

    A zone of pydantic-core (`TzInfo`) must not be in use when the interpreter ends: freeing it in the last garbage
    collection is a segmentation fault (https://github.com/pydantic/pydantic/issues/12867).
    """
    offset = moment.utcoffset()
    return moment.replace(tzinfo=UTC if not offset else timezone(offset))


Timestamp = Annotated[AwareDatetime, AfterValidator(with_standard_zone)]
"""Date and time with an offset, such as `2026-01-31T12:00:00+01:00`."""
