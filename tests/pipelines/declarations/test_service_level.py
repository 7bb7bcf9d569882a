"""Service levels of a contract decide when its data is ingested."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.declarations.contract import Contract
from pipelines.declarations.service_level import ServiceLevel, ingest_schedule, retention_time
from tests.sample_project import PROJECT

CONTRACT = yaml.safe_load((PROJECT / "data-contracts" / "diabetes-patients.odcs.yaml").read_text())


def read(**changes: Any) -> Contract:
    return Contract.model_validate_json(json.dumps({**CONTRACT, **changes}))


def frequency(value: Any, unit: str | None = None, **more: str) -> ServiceLevel:
    return ServiceLevel.model_validate({"property": "frequency", "value": value, "unit": unit, **more})


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1, "min", "* * * * *"),
        (0.5, "minutes", "* * * * *"),
        (7, "min", "*/6 * * * *"),
        (59, "min", "*/30 * * * *"),
        (1, "h", "M * * * *"),
        (60, "minutes", "M * * * *"),
        (5, "hours", "M */4 * * *"),
        (23.5, "h", "M */12 * * *"),
        (1, "d", "M 4 * * *"),
        (2, "weeks", "M 4 * * *"),
        (1, "yr", "M 4 * * *"),
    ],
)
def test_data_is_looked_for_at_least_as_often_as_it_arrives(value: float, unit: str, expected: str) -> None:
    schedule = ingest_schedule("visits", [frequency(value, unit)])
    assert schedule is not None
    minute = schedule.split()[0]
    if expected.startswith("M"):
        assert 0 <= int(minute) < 60
        expected = expected.replace("M", minute)
    assert schedule == expected


def test_the_jobs_of_many_datasets_do_not_start_together() -> None:
    minutes = {str(ingest_schedule(f"dataset-{number}", [frequency(1, "d")])).split()[0] for number in range(50)}
    assert len(minutes) > 20


def test_a_cron_expression_says_exactly_when() -> None:
    level = frequency(1, "d", scheduler="cron", schedule="30  6 * * 1-5")
    assert ingest_schedule("visits", [level]) == "30 6 * * 1-5"


def test_without_a_frequency_data_is_ingested_on_request() -> None:
    assert ingest_schedule("visits", [ServiceLevel(property="latency", value=4, unit="d")]) is None


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ({"value": 0, "unit": "d"}, "a number above 0"),
        ({"value": True, "unit": "d"}, "a number above 0"),
        ({"value": "daily"}, "a number above 0"),
        ({"value": 1}, "found none"),
        ({"value": 1, "unit": "m"}, "as unit of frequency; found m"),
        ({"value": 1, "unit": "d", "schedule": "0 4 * * *"}, "scheduler: cron"),
        ({"value": 1, "unit": "d", "scheduler": "cron", "schedule": "daily"}, "five fields"),
    ],
)
def test_a_frequency_that_cannot_be_scheduled_is_refused(level: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServiceLevel.model_validate({"property": "frequency", **level})


def test_a_contract_has_one_frequency_and_a_retired_one_is_not_scheduled() -> None:
    assert read().ingest_schedule is not None
    assert read(status="retired").ingest_schedule is None
    with pytest.raises(ValidationError, match="at most one frequency in slaProperties; found 2"):
        read(slaProperties=CONTRACT["slaProperties"] * 2)


def retention(value: Any, unit: str | None, element: str | None = None) -> dict[str, Any]:
    level = {"property": "retention", "value": value, "unit": unit, "element": element}
    return {key: each for key, each in level.items() if each is not None}


@pytest.mark.parametrize(("value", "unit", "days"), [(1, "d", 1), (90, "days", 90), (3, "y", 1095), (0.5, "y", 182.5)])
def test_a_retention_is_a_time(value: float, unit: str, days: float) -> None:
    read_levels = read(slaProperties=[retention(value, unit)]).service_levels
    assert retention_time(read_levels) == timedelta(days=days)
    assert read(slaProperties=[]).retention_column is None


@pytest.mark.parametrize(
    ("value", "unit"), [(0, "d"), (-1, "y"), (3, None), (3, "m"), ("3", "y"), (True, "y"), (5, "h"), (2000, "y")]
)
def test_a_retention_that_is_not_a_time_is_refused(value: Any, unit: str | None) -> None:
    with pytest.raises(ValidationError, match="a retention of 1 day to 1000 years"):
        read(slaProperties=[retention(value, unit)])


@pytest.mark.parametrize("element", ["age", "diabetes_patients.age", "nowhere"])
def test_a_retention_by_a_column_that_is_no_time_is_refused(element: str) -> None:
    with pytest.raises(ValidationError, match="the age of a row"):
        read(slaProperties=[retention(3, "y", element)])


def test_a_second_retention_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most one retention"):
        read(slaProperties=[retention(3, "y"), retention(4, "y")])
