"""Timestamps keep time and offset, and have a zone that can be freed at any time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.timestamps import Timestamp

ROOT = Path(__file__).parents[3]
ADAPTER: TypeAdapter[datetime] = TypeAdapter(Timestamp)


@pytest.mark.parametrize(
    ("text", "zone", "written"),
    [
        ("2026-01-31T12:00:00Z", UTC, "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.25+00:00", UTC, "2026-01-31T12:00:00.250000Z"),
        ("2026-01-31T12:00:00+01:30", timezone(timedelta(minutes=90)), "2026-01-31T12:00:00+01:30"),
        ("2026-01-31T12:00:00-11:00", timezone(timedelta(hours=-11)), "2026-01-31T12:00:00-11:00"),
    ],
)
def test_a_timestamp_keeps_its_time_and_offset(text: str, zone: timezone, written: str) -> None:
    found = ADAPTER.validate_json(json.dumps(text))
    assert found == datetime.fromisoformat(text)
    assert type(found.tzinfo) is timezone and found.tzinfo == zone
    assert json.loads(ADAPTER.dump_json(found)) == written


def test_a_timestamp_without_an_offset_is_refused() -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_json('"2026-01-31T12:00:00"')


def test_no_declaration_has_a_zone_of_pydantic() -> None:
    own = ROOT / "pipelines" / "declarations" / "timestamps.py"
    using = [
        str(path.relative_to(ROOT))
        for folder in ("pipelines", "infra", "laptop")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != own and "AwareDatetime" in path.read_text()
    ]
    assert using == [], "use pipelines.declarations.timestamps.Timestamp"
