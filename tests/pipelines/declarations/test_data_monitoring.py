"""Settings of a dataset's monitor in its contract: what they may be, and what each mistake is told as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import DataMonitorSettings, longest_silence_hours, monitor_schedule
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.service_level import ServiceLevel, frequency_minutes, freshness_minutes
from tests.pipelines.data.contracts import column, contract

AGE = column("age", "integer")


def monitored(value: Any, name: str = "monitoring", times: int = 1) -> Contract:
    document = json.loads(contract(AGE).model_dump_json(by_alias=True, exclude_defaults=True))
    document["customProperties"] = [{"property": name, "value": value}] * times
    return parse(json.dumps(document), Contract, Path("visits.odcs.yaml"))


def levels(*entries: dict[str, Any]) -> tuple[ServiceLevel, ...]:
    return tuple(ServiceLevel.model_validate(entry) for entry in entries)


def test_a_contract_without_settings_is_monitored_with_the_defaults() -> None:
    assert contract(AGE).monitoring == DataMonitorSettings()
    assert contract(AGE).is_monitored


def test_settings_are_read_from_the_contract() -> None:
    found = monitored({"minimum_effect": 0.1, "ignored_columns": ["age"]})
    assert (found.monitoring.minimum_effect, found.monitoring.ignored_columns) == (0.1, ("age",))
    assert not monitored({"enabled": False}).is_monitored


def test_a_retired_dataset_is_not_monitored() -> None:
    assert not contract(AGE, status="retired").is_monitored


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"minimum_effect": 0}, "minimum_effect"),
        ({"minimum_effect": "0.1"}, "minimum_effect"),
        ({"minimum_rows": 29}, "minimum_rows"),
        ({"reference_deliveries": 0}, "reference_deliveries"),
        ({"enabled": "no"}, "enabled"),
        ({"minimum_effekt": 0.1}, "minimum_effekt"),
        ({"ignored_columns": ["agee"]}, "agee"),
        (True, "an object with enabled"),
        (None, "an object with enabled"),
    ],
)
def test_a_wrong_setting_is_told_at_its_key(value: Any, told: str) -> None:
    with pytest.raises(DeclarationError) as error:
        monitored(value)
    assert told in str(error.value)
    assert "customProperties" in str(error.value)
    assert "expected" in str(error.value)


@pytest.mark.parametrize("name", ["Monitoring", "monitorings", "monitring"])
def test_a_misspelled_property_is_not_skipped(name: str) -> None:
    with pytest.raises(DeclarationError, match="monitoring"):
        monitored({}, name)


def test_settings_are_given_once() -> None:
    with pytest.raises(DeclarationError, match="monitoring at most once"):
        monitored({}, times=2)


@pytest.mark.parametrize(
    ("entries", "hourly", "silence"),
    [
        ((), False, 26),
        (({"property": "frequency", "value": 1, "unit": "d"},), False, 26),
        (({"property": "frequency", "value": 1, "unit": "w"},), False, 26),
        (({"property": "frequency", "value": 12, "unit": "h"},), True, 3),
        (({"property": "frequency", "value": 5, "unit": "min"},), True, 3),
    ],
)
def test_a_monitor_runs_daily_or_hourly(entries: tuple[dict[str, Any], ...], hourly: bool, silence: int) -> None:
    minute, hour, *rest = monitor_schedule("visits", levels(*entries)).split()
    assert 0 <= int(minute) < 60
    assert (hour, rest) == ("*" if hourly else "5", ["*", "*", "*"])
    assert longest_silence_hours(levels(*entries)) == silence


def test_freshness_is_the_agreed_age_and_latency_means_the_same() -> None:
    frequency = {"property": "frequency", "value": 2, "unit": "h"}
    latency = {"property": "latency", "value": 1, "unit": "d"}
    freshness = {"property": "freshness", "value": 36, "unit": "h"}
    assert frequency_minutes(levels(latency, frequency)) == 120
    assert freshness_minutes(levels(frequency)) is None
    assert freshness_minutes(levels(latency)) == 24 * 60
    assert freshness_minutes(levels(latency, freshness)) == 36 * 60


@pytest.mark.parametrize(
    "entry", [{"value": "soon"}, {"value": 0, "unit": "d"}, {"value": 1}, {"value": True, "unit": "d"}]
)
def test_a_freshness_that_is_no_duration_is_not_checked(entry: dict[str, Any]) -> None:
    assert freshness_minutes(levels({"property": "freshness", **entry})) is None


def test_a_cron_expression_is_no_duration() -> None:
    cron = {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "0 6 * * 1"}
    assert frequency_minutes(levels(cron)) is None


def test_a_table_is_read_in_one_process_unless_the_contract_says_otherwise() -> None:
    assert contract(AGE).engine == "process"
    assert monitored("spark", "engine").engine == "spark"


@pytest.mark.parametrize("value", ["Spark", "ray", 1, None, ["spark"]])
def test_an_engine_that_does_not_exist_is_refused_at_its_key(value: Any) -> None:
    with pytest.raises(DeclarationError) as raised:
        monitored(value, "engine")
    assert "customProperties[0].value: expected one of process, spark, found" in str(raised.value)


@pytest.mark.parametrize("name", ["Engine", "engines", "enginee"])
def test_a_misspelt_engine_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=r"customProperties\[0\].property: expected engine"):
        monitored("spark", name)


def test_an_engine_is_named_once() -> None:
    with pytest.raises(DeclarationError, match="engine at most once"):
        monitored("spark", "engine", times=2)
