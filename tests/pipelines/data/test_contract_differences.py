from __future__ import annotations

from typing import Any

import pytest

from pipelines.data.contract_differences import (
    contract_differences,
    greatest_level,
    is_announced,
    required_version,
)
from pipelines.data.schema_compatibility import breaking_changes
from tests.pipelines.data.contracts import column, contract

AGE = column("age", "integer", required=True, minimum=0, maximum=120)


def effects(old: Any, new: Any) -> dict[tuple[str, str], tuple[bool, bool]]:
    return {
        (each.column, each.key): (each.breaks_consumers, each.breaks_producers)
        for each in contract_differences(old, new)
    }


@pytest.mark.parametrize(
    ("after", "key", "consumers", "producers", "level"),
    [
        (column("age", "integer", required=True, minimum=0), "maximum", True, False, "major"),
        (column("age", "integer", required=True, minimum=0, maximum=100), "maximum", False, True, "minor"),
        (column("age", "integer", minimum=0, maximum=120), "required", True, False, "major"),
        (column("age", "integer", required=True, unique=True, minimum=0, maximum=120), "unique", False, True, "minor"),
        ({**AGE, "description": "Age in years."}, "description", False, False, "patch"),
        ({**AGE, "classification": "restricted"}, "classification", False, False, "patch"),
    ],
)
def test_a_difference_breaks_consumers_producers_or_nobody(
    after: dict[str, Any], key: str, consumers: bool, producers: bool, level: str
) -> None:
    old, new = contract(AGE), contract(after)
    assert effects(old, new) == {("age", key): (consumers, producers)}
    assert greatest_level(contract_differences(old, new), ["age"]) == level


def test_a_column_that_comes_or_goes_breaks_the_producers() -> None:
    old, new = contract(AGE), contract(AGE, column("name", "string"))
    assert effects(old, new) == {("name", "the column"): (False, True)}
    assert effects(new, old) == {("name", "the column"): (True, True)}


def test_a_wider_range_is_major_only_if_a_model_reads_the_column() -> None:
    found = contract_differences(contract(AGE), contract(column("age", "integer", required=True, minimum=0)))
    assert (greatest_level(found, ["age"]), greatest_level(found, [])) == ("major", "minor")


def test_another_way_to_write_a_promise_is_no_difference() -> None:
    listed = column(
        "sex", "integer", quality=[{"metric": "invalidValues", "arguments": {"validValues": [1, 2]}, "mustBe": 0}]
    )
    enum = column("sex", "integer", enum=[{"value": 1}, {"value": 2}])
    assert effects(contract(listed), contract(enum)) == {}


def test_every_breaking_change_is_a_difference_for_consumers() -> None:
    old = contract(AGE, column("name", "string", maxLength=5), column("gone", "date"))
    new = contract(column("age", "number"), column("name", "string"), status="retired")
    expected = {(change.column, change.promise) for change in breaking_changes(old, new)}
    found = {key for key, (consumers, _) in effects(old, new).items() if consumers}
    assert expected == found and len(expected) == 4


def test_descriptions_of_the_dataset_are_differences_that_break_nothing() -> None:
    old = contract(AGE, description={"purpose": "a"}, slaProperties=[])
    new = contract(AGE, description={"purpose": "b"}, team={"name": "data"}, version="1.0.1")
    assert effects(old, new) == {("", "description"): (False, False), ("", "team"): (False, False)}


SEEN = column("seen", "date")


def kept(days: int | None, **keys: Any) -> Any:
    """Return a contract with other service levels before its retention."""
    others = [{"property": name, "value": f"{name} of the data"} for name in ("availability", "support", "latency")]
    level = {"property": "retention", "value": days, "unit": "d", "element": "visits.seen"}
    return contract(SEEN, column("left", "date"), slaProperties=[*others, *([level] if days else [])], **keys)


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        (kept(365), kept(30), True),
        (kept(None), kept(3650), True),
        (kept(365, status="draft"), kept(365), True),
        (kept(30), kept(365), False),
        (kept(30), kept(None), False),
    ],
)
def test_rows_that_are_removed_sooner_break_consumers(old: Any, new: Any, breaks: bool) -> None:
    found = effects(old, new)
    assert found["", "rows stay"] == (breaks, False)
    assert greatest_level(contract_differences(old, new), ()) == ("major" if breaks else "patch")


def test_a_service_level_or_a_property_is_compared_by_its_name() -> None:
    listed = [{"property": "predictionColumns", "value": value} for value in (["seen"], ["seen", "left"])]
    old, new = (kept(days, customProperties=[one]) for days, one in zip((365, 30), listed, strict=True))
    assert [str(each) for each in contract_differences(old, new)] == [
        "the dataset: rows stay was 365 days from seen, is 30 days from seen (breaks consumers)",
        "the dataset: slaProperties retention was {'value': 365, 'unit': 'd', 'element': 'visits.seen'}, is "
        "{'value': 30, 'unit': 'd', 'element': 'visits.seen'} (breaks nothing)",
        "the dataset: customProperties predictionColumns was ['seen'], is ['seen', 'left'] (breaks nothing)",
    ]
    assert effects(kept(30), kept(30)) == {}
    one, two = ([{"property": "latency", "value": value} for value in values] for values in ((4, 5), (3, 5)))
    assert set(effects(contract(SEEN, slaProperties=one), contract(SEEN, slaProperties=two))) == {
        ("", "slaProperties latency")
    }
    table = old.table.model_copy(update={"custom_properties": old.custom_properties})
    both = old.model_copy(update={"tables": (table,)})
    assert set(effects(old, both)) == {("", "table customProperties predictionColumns")}
    assert set(effects(both, old.model_copy(update={"custom_properties": ()}))) == {
        ("", "table customProperties predictionColumns"),
        ("", "customProperties predictionColumns"),
    }


@pytest.mark.parametrize(
    ("before", "level", "required"),
    [
        ("1.2.3", "major", "2.0.0"),
        ("1.2.3", "minor", "1.3.0"),
        ("1.2.3", "patch", "1.2.4"),
        ("0.2.3", "major", "0.3.0"),
        ("0.2.3", "minor", "0.2.4"),
    ],
)
def test_a_level_requires_a_version(before: str, level: Any, required: str) -> None:
    assert required_version(before, level) == required
    assert is_announced(before, required, level)
    assert is_announced(before, "9.0.0", level)
    assert not is_announced(before, before, level)
