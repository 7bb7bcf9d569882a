"""Physical types as SQL spells them."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.declarations.contract import Column
from pipelines.declarations.sql_types import PLAIN_TYPES, known_types, sql_type


@pytest.mark.parametrize(
    ("logical", "physical", "stored", "bounds", "decimals"),
    [
        ("string", "VARCHAR(18)", "string", {"max_length": 18}, None),
        ("string", "character varying (18)", "string", {"max_length": 18}, None),
        ("string", "char(2)", "string", {"max_length": 2}, None),
        ("integer", "BIGINT", "long", {}, None),
        ("integer", "smallint", "int", {"minimum": -32768, "maximum": 32767}, None),
        ("integer", "decimal(9)", "long", {"minimum": -999_999_999, "maximum": 999_999_999}, None),
        ("integer", "numeric(18, 0)", "long", {"minimum": 1 - 10**18, "maximum": 10**18 - 1}, None),
        ("number", "decimal(10,2)", "double", {"exclusive_minimum": -(10**8), "exclusive_maximum": 10**8}, 2),
        ("number", "NUMERIC( 4 , 4 )", "double", {"exclusive_minimum": -1, "exclusive_maximum": 1}, 4),
        ("number", "double  precision", "double", {}, None),
        ("number", "real", "float", {}, None),
        ("number", "float(24)", "float", {}, None),
        ("number", "float(53)", "double", {}, None),
        ("timestamp", "timestamp(6)", "timestamp", {}, None),
        ("timestamp", "timestamp with time zone", "timestamp", {}, None),
        ("timestamp", "TIMESTAMP(6) WITHOUT TIME ZONE", "timestamp", {}, None),
    ],
)
def test_a_type_of_sql_is_accepted_by_its_meaning(
    logical: str, physical: str, stored: str, bounds: dict[str, int], decimals: int | None
) -> None:
    found = sql_type(logical, physical)
    assert found is not None
    assert (found.stored, found.bounds, found.decimals) == (stored, bounds, decimals)


@pytest.mark.parametrize(
    ("logical", "physical"),
    [
        ("string", "varchar(0)"),
        ("string", "varchar(18, 2)"),
        ("string", "varchar(18) with time zone"),
        ("string", "decimal(10, 2)"),
        ("integer", "decimal(10, 2)"),
        ("integer", "decimal(19)"),
        ("number", "decimal(16, 2)"),
        ("number", "decimal(2, 4)"),
        ("number", "float(54)"),
        ("timestamp", "timestamp(9)"),
        ("timestamp", "timestamp(3)"),
        ("date", "date(6)"),
        ("boolean", "bit(1)"),
        ("string", ""),
        ("string", "varchar(18"),
    ],
)
def test_a_type_that_would_lose_values_is_refused(logical: str, physical: str) -> None:
    assert sql_type(logical, physical) is None


@pytest.mark.parametrize("logical", list(PLAIN_TYPES))
def test_every_type_that_a_message_names_is_accepted(logical: str) -> None:
    for each in known_types(logical).replace(", s)", "; s)").split(", "):
        name = each.partition(" of at most")[0].replace("; s)", ", 2)").replace("(n)", "(5)").replace("(p", "(9")
        assert sql_type(logical, name) is not None, name


@pytest.mark.parametrize(
    ("options", "longest"), [({}, 18), ({"maxLength": 5}, 5), ({"maxLength": 100}, 18), ({"minLength": 2}, 18)]
)
def test_the_tighter_of_two_bounds_counts(options: dict[str, Any], longest: int) -> None:
    declared = {"name": "c", "logicalType": "string", "physicalType": "varchar(18)", "logicalTypeOptions": options}
    assert Column.model_validate(declared).options.max_length == longest
