"""Quality rules of a data contract: metrics of the standard's library, SQL checks, and conditions on rows.

A rule binds a row or a batch. A row that breaks a rule on rows is quarantined; a batch that breaks a rule on the batch
is held back as a whole. A rule with the severity `warning` or `info` binds nothing: what breaks it is only reported.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from pipelines.declarations.custom_properties import CustomProperty, Descriptions
from pipelines.declarations.documents import Declaration, KeyedError
from pipelines.declarations.names import ColumnName
from pipelines.declarations.value_range import Scalar

Metric = Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"]

ENGINE = "duckdb"
"""`engine` of a custom rule that is a condition on rows."""

REPORTED_SEVERITIES = ("warning", "info")
"""Severities of rules that are checked and reported, but bind nothing. Any other severity binds, as none does."""

BATCH_PLACEHOLDERS = ("object", "table")
"""Names in braces that stand for the rows of the batch, in the query of a SQL check."""

COLUMN_PLACEHOLDERS = ("property", "column")
"""Names in braces that stand for the column that has the rule."""

PLACEHOLDER = re.compile(r"\$?\{([A-Za-z][A-Za-z0-9_-]*)\}")

Statement = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
"""SQL text."""


class QualityArguments(Declaration):
    """Arguments of a library metric.

    Attributes:
        valid_values: the allowed values, for `invalidValues`; null is always allowed.
        pattern: regular expression (RE2) that the whole text must match, for `invalidValues`.
        missing_values: the values that count as missing, for `missingValues`; null and the empty text by default.
        properties: the columns that are unique together, for `duplicateValues` on the table.
    """

    valid_values: tuple[Scalar | None, ...] | None = Field(None, alias="validValues")
    pattern: str | None = None
    missing_values: Annotated[tuple[Scalar | None, ...], Field(min_length=1)] | None = Field(
        None, alias="missingValues"
    )
    properties: tuple[ColumnName, ...] | None = None


_METRIC_OF = {
    "validValues": "invalidValues",
    "pattern": "invalidValues",
    "missingValues": "missingValues",
    "properties": "duplicateValues",
}
"""Argument → the only metric that has it."""


class Quality(Declaration):
    """Quality rule.

    Attributes:
        type: `library` for a metric; `sql` for a query whose one number or truth value must keep the bounds; `custom`
            for a condition that each row must keep; `text` for a description that nothing checks.
        metric: the metric to compute, for `library`.
        query: SQL query, for `sql`. `{object}` is the rows of the batch that keep the rules on rows, `{property}` the
            column that has the rule, and `{<dataset>}` the table of a dataset, also of this one.
        engine: `duckdb`, for `custom`.
        implementation: SQL condition that each row must keep, for `custom`. As in SQL, null keeps it.
        must_be, must_not_be: the value that the figure must have, or must not have.
        must_be_greater_than, must_be_greater_or_equal_to, must_be_less_than, must_be_less_or_equal_to: bounds.
        must_be_between, must_not_be_between: two bounds, which are excluded.
        unit: unit of the bounds of a metric, `rows` or `percent`; of a query, any text for people.
        severity: `warning` and `info` only report; see `REPORTED_SEVERITIES`.
    """

    id: str | None = None
    name: str | None = None
    description: str | None = None
    type: Literal["library", "text", "sql", "custom"] = "library"
    metric: Metric | None = None
    arguments: QualityArguments | None = None
    query: Statement | None = None
    engine: str | None = None
    implementation: Any = None
    dimension: str | None = None
    severity: str | None = None
    business_impact: str | None = Field(None, alias="businessImpact")
    method: str | None = None
    scheduler: str | None = None
    schedule: str | None = None
    tags: tuple[str, ...] = ()
    unit: str = "rows"
    must_be: float | None = Field(None, alias="mustBe")
    must_not_be: float | None = Field(None, alias="mustNotBe")
    must_be_greater_than: float | None = Field(None, alias="mustBeGreaterThan")
    must_be_greater_or_equal_to: float | None = Field(None, alias="mustBeGreaterOrEqualTo")
    must_be_less_than: float | None = Field(None, alias="mustBeLessThan")
    must_be_less_or_equal_to: float | None = Field(None, alias="mustBeLessOrEqualTo")
    must_be_between: tuple[float, float] | None = Field(None, alias="mustBeBetween")
    must_not_be_between: tuple[float, float] | None = Field(None, alias="mustNotBeBetween")
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")
    authoritative_definitions: Descriptions = Field((), alias="authoritativeDefinitions")

    @field_validator("must_be", "must_not_be", mode="before")
    @classmethod
    def _truth_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return float(value) if isinstance(value, bool) and info.data.get("type") == "sql" else value

    @property
    def is_checked(self) -> bool:
        """True if the rule is checked, False if it only describes."""
        return self.type != "text"

    @property
    def binds(self) -> bool:
        """True if what breaks the rule is quarantined or held back, False if it is only reported."""
        return self.is_checked and (self.severity or "").strip().lower() not in REPORTED_SEVERITIES

    @property
    def is_for_rows(self) -> bool:
        """True if each row that breaks the rule can be quarantined: a metric with the bound zero, or a condition."""
        zero = self.must_be == 0 or self.must_be_less_or_equal_to == 0
        return self.binds and (self.type == "custom" or (self.type == "library" and zero))

    @property
    def label(self) -> str:
        """Name of the rule in reports: its metric, its name, its id, or the beginning of its SQL."""
        text = " ".join((self.query or str(self.implementation or "")).split())
        return str(self.metric or self.name or self.id or (text if len(text) <= 60 else text[:59] + "…"))

    @property
    def condition(self) -> str:
        """The SQL condition that each row must keep; "" if the rule has none."""
        return self.implementation if isinstance(self.implementation, str) else ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the datasets whose tables the query reads."""
        names = PLACEHOLDER.findall(self.query or "")
        return tuple(dict.fromkeys(n for n in names if n not in (*BATCH_PLACEHOLDERS, *COLUMN_PLACEHOLDERS)))

    @property
    def valid_values(self) -> tuple[Scalar, ...]:
        """The listed values, without null; empty if there are none."""
        listed = self.arguments.valid_values if self.arguments is not None else None
        return tuple(value for value in listed or () if value is not None)

    @property
    def pattern(self) -> str | None:
        """The regular expression that valid texts match."""
        return self.arguments.pattern if self.arguments is not None else None

    @property
    def missing_values(self) -> tuple[Scalar | None, ...]:
        """The values that count as missing."""
        listed = self.arguments.missing_values if self.arguments is not None else None
        return listed if listed is not None else (None, "")

    @property
    def lows(self) -> list[tuple[float, bool]]:
        """Lower bounds of the figure, each with True if it is excluded."""
        bounds = [(self.must_be, False), (self.must_be_greater_or_equal_to, False), (self.must_be_greater_than, True)]
        bounds += [(self.must_be_between[0], True)] if self.must_be_between is not None else []
        return [(bound, strict) for bound, strict in bounds if bound is not None]

    @property
    def highs(self) -> list[tuple[float, bool]]:
        """Upper bounds of the figure, each with True if it is excluded."""
        bounds = [(self.must_be, False), (self.must_be_less_or_equal_to, False), (self.must_be_less_than, True)]
        bounds += [(self.must_be_between[1], True)] if self.must_be_between is not None else []
        return [(bound, strict) for bound, strict in bounds if bound is not None]

    @property
    def bounds(self) -> dict[str, float | tuple[float, float]]:
        """Key of each bound that the rule has → its value."""
        found = self.model_dump(by_alias=True, exclude_none=True)
        return {key: value for key, value in found.items() if key.startswith("must")}

    @model_validator(mode="after")
    def _can_be_checked(self) -> Quality:
        if self.type == "text":
            if self.metric is not None or self.bounds or self.query is not None:
                raise ValueError("type: library for a rule with a metric or a bound; found type: text")
        elif self.type == "custom":
            self._check_condition()
        elif self.type == "sql":
            self._check_query()
        else:
            self._check_metric()
        if self.type != "sql" and self.query is not None:
            raise ValueError(f"type: sql for a rule with a query; found type: {self.type}")
        if self.type != "custom" and (self.engine is not None or self.implementation is not None):
            raise ValueError(f"type: custom for a rule with an engine; found type: {self.type}")
        return self

    def _check_condition(self) -> None:
        if self.engine != ENGINE:
            expected = f"{ENGINE}, the only engine that runs here (implementation is a condition that each row keeps)"
            raise KeyedError((("engine",), expected, repr(self.engine)))
        if not self.condition.strip() or len(self.condition) > 20_000:
            raise KeyedError((("implementation",), "a SQL condition that each row must keep", "none"))
        if PLACEHOLDER.search(self.condition):
            expected = "a condition on the columns of one row, without braces"
            raise KeyedError((("implementation",), expected, PLACEHOLDER.findall(self.condition)[0]))
        if self.metric is not None or self.arguments is not None or self.bounds:
            raise ValueError("a condition without metric, arguments and bounds; found one with them")

    def _check_query(self) -> None:
        if self.query is None:
            raise ValueError("a query for a rule of the type sql; found none")
        if self.metric is not None or self.arguments is not None:
            raise ValueError("a query without metric and arguments; found one with them")
        if not self.bounds:
            raise ValueError("mustBe or another bound; found none")

    def _check_metric(self) -> None:
        if self.metric is None:
            raise ValueError("a metric, or type: text for a rule that only describes; found neither")
        if not self.bounds:
            raise ValueError("mustBe or another bound; found none")
        if self.unit not in ("rows", "percent"):
            raise KeyedError((("unit",), "rows or percent", repr(self.unit)))
        if self.metric == "invalidValues" and not self.valid_values and self.pattern is None:
            raise ValueError("arguments.validValues or arguments.pattern for the metric invalidValues; found none")
        given = self.arguments.model_dump(by_alias=True, exclude_none=True) if self.arguments is not None else {}
        for key in given:
            if self.metric != _METRIC_OF[key]:
                expected = f"{key} for the metric {_METRIC_OF[key]} only"
                raise KeyedError((("arguments", key), expected, self.metric))

    @model_validator(mode="after")
    def _can_be_kept(self) -> Quality:
        for key in ("must_be_between", "must_not_be_between"):
            pair = getattr(self, key)
            if pair is not None and pair[0] >= pair[1]:
                raise ValueError(f"two bounds, the smaller one first; found {pair[0]:g} and {pair[1]:g}")
        least = [] if self.type == "sql" else [(0.0, False)]
        most = [(100.0, False)] if self.unit == "percent" and self.type == "library" else []
        low, after = max([*self.lows, *least, (float("-inf"), False)])
        high, before = min([*self.highs, *most, (float("inf"), False)], key=lambda at: (at[0], not at[1]))
        if low > high or (low == high and (after or before or low == self.must_not_be)):
            allowed = "any number" if self.type == "sql" else "a figure from 0 to any number of rows"
            allowed = "a figure from 0 to 100 percent" if most else allowed
            raise ValueError(f"bounds that {allowed} can keep; found bounds that none can")
        return self
