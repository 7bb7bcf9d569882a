"""Data contract: the part of the Open Data Contract Standard v3.1 and v3.2 that this project enforces.

Source: https://bitol-io.github.io/open-data-contract-standard/. Keys that only describe (team, support, synonyms, …)
are accepted unread. Of the service levels, `frequency`, `freshness` and `retention` bind. Keys that the standard does
not define are rejected, and so are rules that we cannot check: a rule that is silently skipped is worse than none.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator, model_validator

from pipelines.declarations.custom_properties import CustomProperty, Descriptions
from pipelines.declarations.data_monitoring import MONITORING, DataMonitorSettings
from pipelines.declarations.documents import Declaration, Key, KeyedError
from pipelines.declarations.names import ColumnName, Name
from pipelines.declarations.quality import COLUMN_PLACEHOLDERS, PLACEHOLDER, Quality
from pipelines.declarations.relationships import ForeignKey, Relationship
from pipelines.declarations.service_level import FREQUENCY, RETENTION, ServiceLevel, ingest_schedule, retention_level
from pipelines.declarations.sql_types import default_type, known_types, sql_type
from pipelines.declarations.value_range import (
    KINDS,
    Scalar,
    StoredType,
    ValueRange,
    full_range,
    lower_limit,
    parse_value,
    upper_limit,
)

LogicalType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]

MAXIMUM_QUARANTINED = "maximumQuarantinedPercent"
"""Custom property of a contract: share of a landing file's rows that may be quarantined, in percent."""

DEFAULT_MAXIMUM_QUARANTINED = 20.0

ENGINE = "engine"
"""Custom property of a contract: where whole tables of the dataset are read, one of `ENGINES`."""

Engine = Literal["process", "spark"]

ENGINES: tuple[Engine, ...] = get_args(Engine)
"""`process`: in the process that reads them. `spark`: on a Spark Connect server, for tables larger than a machine."""

PREDICTION_COLUMNS = "predictionColumns"
"""Custom property of a contract: columns that batch predictions copy from their input, besides keys without personal
data."""

RESERVED_COLUMNS = ("file_row_number",)
"""Column names that the query engine needs when it reads Parquet files."""


class TypeOptions(Declaration):
    """`logicalTypeOptions`: bounds on each value of a column.

    Attributes:
        minimum, maximum, exclusive_minimum, exclusive_maximum: a number, or an ISO 8601 date or timestamp. A decimal
            is compared with a value in the precision of the value: 0.1 stored in 32 bits keeps `maximum: 0.1`.
        min_length, max_length: length of text in characters.
        pattern: regular expression (RE2) that the whole text must match.
        format, timezone, default_timezone: accepted if they describe the stored type.
    """

    minimum: Scalar | None = None
    maximum: Scalar | None = None
    exclusive_minimum: Scalar | None = Field(None, alias="exclusiveMinimum")
    exclusive_maximum: Scalar | None = Field(None, alias="exclusiveMaximum")
    min_length: Annotated[int, Field(ge=0)] | None = Field(None, alias="minLength")
    max_length: Annotated[int, Field(ge=0)] | None = Field(None, alias="maxLength")
    pattern: str | None = None
    format: str | None = None
    timezone: bool | None = None
    default_timezone: str | None = Field(None, alias="defaultTimezone")

    def bounded(self, bounds: Mapping[str, int]) -> TypeOptions:
        """Return the options with further bounds, where its own are not tighter.

        Args:
            bounds: name of an attribute → number.
        """
        tighter: dict[str, int | float] = {}
        for name, bound in bounds.items():
            own = getattr(self, name)
            if own is None:
                tighter[name] = bound
            elif isinstance(own, int | float) and not isinstance(own, bool):
                tighter[name] = max(own, bound) if name.endswith("minimum") else min(own, bound)
        return self.model_copy(update=tighter)


_FORMATS: dict[StoredType, str] = {"int": "i32", "long": "i64", "float": "f32", "double": "f64", "date": "yyyy-MM-dd"}
"""Stored type → the standard's format that means the same."""

_ANY_OF_UTC = ("Etc/UTC", "UTC")

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


class EnumValue(Declaration):
    """Entry of `enum`: an allowed value, and what it means."""

    value: Scalar | None
    label: str | None = None
    id: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")
    authoritative_definitions: Descriptions = Field((), alias="authoritativeDefinitions")


class Column(Declaration):
    """Column of the table: a property of the contract's schema object.

    Attributes:
        physical_type: as SQL spells it. `varchar(18)` and `decimal(10, 2)` bound the values, like `options`.
        allowed: `enum` in the file: the only values that rows may have, besides null.
        quality: quality rules and descriptions; `rules` are those that bind, `warnings` those that are only reported.
    """

    id: str | None = None
    name: ColumnName
    physical_name: str | None = Field(None, alias="physicalName")
    business_name: str | None = Field(None, alias="businessName")
    logical_type: LogicalType = Field(alias="logicalType")
    physical_type: str | None = Field(None, alias="physicalType")
    description: str | None = None
    required: bool = False
    unique: bool = False
    primary_key: bool = Field(False, alias="primaryKey")
    primary_key_position: int | None = Field(None, alias="primaryKeyPosition")
    options: TypeOptions = Field(
        default_factory=lambda: TypeOptions(), alias="logicalTypeOptions", validate_default=True
    )
    allowed: Annotated[tuple[EnumValue, ...], Field(min_length=1)] | None = Field(None, alias="enum")
    classification: str | None = None
    critical_data_element: bool = Field(False, alias="criticalDataElement")
    encrypted_name: str | None = Field(None, alias="encryptedName")
    semantic_type: Literal["column", "measure", "dimension"] = Field("column", alias="semanticType")
    deprecated: bool = False
    synonyms: Descriptions = ()
    partitioned: bool = False
    partition_key_position: int | None = Field(None, alias="partitionKeyPosition")
    transform_source_objects: tuple[str, ...] = Field((), alias="transformSourceObjects")
    transform_logic: str | None = Field(None, alias="transformLogic")
    transform_description: str | None = Field(None, alias="transformDescription")
    examples: tuple[Any, ...] = ()
    tags: tuple[str, ...] = ()
    relationships: tuple[Relationship, ...] = ()
    quality: tuple[Quality, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")
    authoritative_definitions: Descriptions = Field((), alias="authoritativeDefinitions")

    @field_validator("physical_type")
    @classmethod
    def _can_be_stored(cls, value: str | None, info: ValidationInfo) -> str | None:
        logical_type = info.data.get("logical_type")
        if value is not None and logical_type is not None and sql_type(logical_type, value) is None:
            known = known_types(logical_type)
            raise ValueError(f"one of {known} (logicalType is {logical_type}); found {value!r}")
        return value

    @field_validator("options")
    @classmethod
    def _has_the_bounds_of_its_type(cls, value: TypeOptions, info: ValidationInfo) -> TypeOptions:
        logical_type, physical_type = info.data.get("logical_type"), info.data.get("physical_type")
        found = sql_type(logical_type, physical_type) if logical_type and physical_type else None
        return value.bounded(found.bounds) if found is not None and found.bounds else value

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, value: str) -> str:
        if value in RESERVED_COLUMNS:
            raise ValueError(f"a name that the query engine does not reserve; found {value!r}")
        return value

    @field_validator("partitioned")
    @classmethod
    def _is_not_partitioned(cls, value: bool) -> bool:
        if value:
            raise ValueError("partitioned: false, because tables are not partitioned; found true")
        return value

    @property
    def stored_as(self) -> StoredType:
        """The type of the column in the Iceberg table."""
        found = sql_type(self.logical_type, self.physical_type) if self.physical_type else None
        return found.stored if found is not None else default_type(self.logical_type)

    @property
    def decimals(self) -> int | None:
        """Digits after the point that its physical type allows (`decimal(10, 2)`); None if it allows any number."""
        found = sql_type(self.logical_type, self.physical_type) if self.physical_type else None
        return found.decimals if found is not None else None

    @property
    def rules(self) -> tuple[Quality, ...]:
        """The quality rules that bind."""
        return tuple(rule for rule in self.quality if rule.binds)

    @property
    def warnings(self) -> tuple[Quality, ...]:
        """The quality rules that are checked and only reported."""
        return tuple(rule for rule in self.quality if rule.is_checked and not rule.binds)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions of its rules."""
        found = (self.options.pattern, *(rule.pattern for rule in self.quality))
        return tuple(pattern for pattern in found if pattern is not None)

    @property
    def listed_values(self) -> list[tuple[str, tuple[Scalar, ...]]]:
        """The lists of allowed values that each row must keep, with the name of their rule."""
        lists: list[tuple[str, tuple[Scalar, ...]]] = []
        if self.allowed is not None:
            lists.append(("enum", tuple(entry.value for entry in self.allowed if entry.value is not None)))
        lists += [
            (str(rule.metric), rule.valid_values) for rule in self.rules if rule.valid_values and rule.is_for_rows
        ]
        return lists

    @property
    def valid_values(self) -> tuple[Scalar, ...] | None:
        """The values that every row may have besides null, or None if the contract does not list them.

        A list that only a share of the rows must keep does not count.
        """
        lists = [values for _, values in self.listed_values]
        if not lists:
            return None
        return tuple(value for value in lists[0] if all(value in other for other in lists[1:]))

    @property
    def value_range(self) -> ValueRange | None:
        """The values between the column's bounds; None for text and booleans, which have none."""
        everything = full_range(self.stored_as)
        if everything is None:
            return None
        options, low, high = self.options, everything.low, everything.high
        for bound, exclusive in ((options.minimum, False), (options.exclusive_minimum, True)):
            if bound is not None:
                low = max(low, lower_limit(self.stored_as, bound, exclusive=exclusive))
        for bound, exclusive in ((options.maximum, False), (options.exclusive_maximum, True)):
            if bound is not None:
                high = min(high, upper_limit(self.stored_as, bound, exclusive=exclusive))
        return ValueRange(low, high)

    @model_validator(mode="after")
    def _rules_can_be_checked(self) -> Column:
        problems = [*self._wrong_options(), *self._wrong_bounds(), *self._wrong_values()]
        for index, rule in enumerate(self.quality):
            if rule.metric == "rowCount":
                expected = "rowCount in the quality rules of the table"
                problems.append((("quality", index, "metric"), expected, f"it on the column {self.name!r}"))
            if rule.arguments is not None and rule.arguments.properties is not None:
                key = ("quality", index, "arguments", "properties")
                problems.append((key, "properties in the quality rules of the table", f"them on {self.name!r}"))
            if rule.pattern is not None and self.logical_type != "string":
                key = ("quality", index, "arguments", "pattern")
                problems.append((key, "a pattern on columns of type string only", f"it on {self.logical_type}"))
        problems += _wrong_relationships(self.relationships, self.name)
        if problems:
            raise KeyedError(*problems)
        return self

    def _wrong_options(self) -> list[tuple[Key, str, str]]:
        options = self.options
        problems: list[tuple[Key, str, str]] = []
        text = {"minLength": options.min_length, "maxLength": options.max_length, "pattern": options.pattern}
        for name, value in text.items():
            if value is not None and self.logical_type != "string":
                expected = f"{name} on columns of type string only"
                problems.append(((_OPTIONS, name), expected, f"it on {self.logical_type}"))
        low, high = options.min_length, options.max_length
        if low is not None and high is not None and low > high:
            problems.append(((_OPTIONS, "minLength"), f"at most maxLength ({high})", str(low)))
        if options.format is not None and options.format != _FORMATS.get(self.stored_as):
            known = _FORMATS.get(self.stored_as)
            expected = f"{known} for a column stored as {self.stored_as}" if known else "no format"
            problems.append(((_OPTIONS, "format"), expected, repr(options.format)))
        zones = {"timezone": options.timezone, "defaultTimezone": options.default_timezone}
        for name, value in zones.items():
            if value is not None and self.logical_type != "timestamp":
                problems.append(((_OPTIONS, name), f"{name} on columns of type timestamp only", "it here"))
        if options.default_timezone not in (None, *_ANY_OF_UTC):
            problems.append(((_OPTIONS, "defaultTimezone"), "Etc/UTC", repr(options.default_timezone)))
        return problems

    def _wrong_bounds(self) -> list[tuple[Key, str, str]]:
        options = self.options
        problems: list[tuple[Key, str, str]] = []
        bounds = (options.minimum, options.exclusive_minimum, options.maximum, options.exclusive_maximum)
        for name, bound in zip(_BOUNDS, bounds, strict=True):
            if bound is None:
                continue
            limit = lower_limit if name.lower().endswith("minimum") else upper_limit
            if full_range(self.stored_as) is None:
                expected = f"{name} on columns of type integer, number, date or timestamp only"
                problems.append(((_OPTIONS, name), expected, f"it on {self.logical_type}"))
                continue
            try:
                limit(self.stored_as, bound, exclusive=name.startswith("exclusive"))
            except ValueError as error:
                problems.append(((_OPTIONS, name), str(error), repr(bound)))
        if problems:
            return problems
        between = self.value_range
        if between is not None and between.low > between.high:
            found = [f"{name} {bound}" for name, bound in zip(_BOUNDS, bounds, strict=True) if bound is not None]
            return [((_OPTIONS,), "bounds that a value can keep", " and ".join(found))]
        return []

    def _wrong_values(self) -> list[tuple[Key, str, str]]:
        lists: list[tuple[Key, tuple[Scalar | None, ...]]] = []
        if self.allowed is not None:
            lists.append((("enum",), tuple(entry.value for entry in self.allowed)))
        for index, rule in enumerate(self.quality):
            if rule.arguments is not None and rule.arguments.valid_values is not None:
                lists.append((("quality", index, "arguments", "validValues"), rule.arguments.valid_values))
        problems = []
        for key, values in lists:
            for place, value in enumerate(values):
                if value is not None and (expected := self._expected(value)):
                    problems.append(((*key, place), expected, repr(value)))
        for index, rule in enumerate(self.quality):
            for place, value in enumerate(rule.missing_values):
                if value not in (None, "") and (expected := self._expected(value)):
                    key = ("quality", index, "arguments", "missingValues", place)
                    problems.append((key, f"{expected}, null or the empty text", repr(value)))
        if problems or not lists or self._wrong_bounds():
            return problems
        between, listed = self.value_range, self.valid_values
        allowed = (parse_value(self.stored_as, value) for value in listed or ())
        if listed is not None and not any(between is None or value in between for value in allowed):
            return [(lists[0][0], "a value that the column's other rules allow", "none")]
        return []

    def _expected(self, value: Scalar) -> str:
        """Return what a listed value should be; "" if it is of the column's type."""
        try:
            parse_value(self.stored_as, value)
        except ValueError:
            return KINDS[self.stored_as]
        return ""


_OPTIONS = "logicalTypeOptions"


class Table(Declaration):
    """Schema object of the contract: its one table."""

    id: str | None = None
    name: Name
    physical_name: str | None = Field(None, alias="physicalName")
    business_name: str | None = Field(None, alias="businessName")
    logical_type: Literal["object"] = Field("object", alias="logicalType")
    physical_type: Literal["table"] = Field("table", alias="physicalType")
    description: str | None = None
    data_granularity: str | None = Field(None, alias="dataGranularityDescription")
    deprecated: bool = False
    synonyms: Descriptions = ()
    context: Any = None
    tags: tuple[str, ...] = ()
    relationships: tuple[Relationship, ...] = ()
    properties: Annotated[tuple[Column, ...], Field(min_length=1)]
    quality: tuple[Quality, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")
    authoritative_definitions: Descriptions = Field((), alias="authoritativeDefinitions")

    @property
    def rules(self) -> tuple[Quality, ...]:
        """The quality rules that bind."""
        return tuple(rule for rule in self.quality if rule.binds)

    @property
    def warnings(self) -> tuple[Quality, ...]:
        """The quality rules that are checked and only reported."""
        return tuple(rule for rule in self.quality if rule.is_checked and not rule.binds)

    @model_validator(mode="after")
    def _columns_hold_together(self) -> Table:
        names = [column.name for column in self.properties]
        problems: list[tuple[Key, str, str]] = [
            (("properties", index, "name"), "a name that no other property has", repr(name))
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        if not any(column.primary_key for column in self.properties):
            problems.append((("properties",), "at least one property with primaryKey: true", "none"))
        for index, rule in enumerate(self.quality):
            if rule.type == "library" and rule.metric not in ("rowCount", "duplicateValues"):
                expected = "rowCount or duplicateValues, or the rule on the column that it applies to"
                problems.append((("quality", index, "metric"), expected, str(rule.metric)))
            named = rule.arguments.properties if rule.arguments is not None else None
            for place, name in enumerate(named or ()):
                if name not in names:
                    key = ("quality", index, "arguments", "properties", place)
                    problems.append((key, f"one of {', '.join(names)}", repr(name)))
            if found := [each for each in PLACEHOLDER.findall(rule.query or "") if each in COLUMN_PLACEHOLDERS]:
                expected = "the name of a column, because the rule is on the table"
                problems.append((("quality", index, "query"), expected, f"{{{found[0]}}}"))
        problems += _wrong_relationships(self.relationships, None)
        for index, relationship in enumerate(self.relationships):
            for name in relationship.foreign_key(None).columns if not problems and relationship.is_enforced else ():
                if name not in names:
                    problems.append((("relationships", index, "from"), f"one of {', '.join(names)}", repr(name)))
        if problems:
            raise KeyedError(*problems)
        return self


def _wrong_relationships(relationships: tuple[Relationship, ...], column: str | None) -> list[tuple[Key, str, str]]:
    """Return what is wrong with relationships that rows must keep."""
    problems: list[tuple[Key, str, str]] = []
    for index, relationship in enumerate(relationships):
        try:
            if relationship.is_enforced:
                relationship.foreign_key(column)
        except ValueError as error:
            expected, _, found = str(error).partition("; found ")
            problems.append((("relationships", index), expected, found))
    return problems


class Contract(Declaration):
    """`data-contracts/<dataset>.odcs.yaml`.

    Attributes:
        id: identifier of the contract.
        name: name of the dataset, of the file and of the schema object.
        version: version of the contract, `<major>.<minor>.<patch>`.
        tables: `schema` in the file; a list of one.
        service_levels: `slaProperties` in the file.
        custom_properties: `maximumQuarantinedPercent` bounds the rows of a landing file that may be quarantined;
            `monitoring` has the settings of the dataset's monitor; `engine` says where its whole table is read;
            `predictionColumns` lists columns that batch predictions copy.
    """

    api_version: Literal["v3.1.0", "v3.2.0"] = Field(alias="apiVersion")
    kind: Literal["DataContract"]
    id: Annotated[str, StringConstraints(min_length=1)]
    name: Name
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    status: Literal["proposed", "draft", "active", "deprecated", "retired"]
    tables: Annotated[tuple[Table, ...], Field(min_length=1, max_length=1, alias="schema")]
    description: dict[str, Any] | None = None
    domain: str | None = None
    tenant: str | None = None
    data_product: str | None = Field(None, alias="dataProduct")
    tags: tuple[str, ...] = ()
    servers: tuple[dict[str, Any], ...] = ()
    team: Any = None
    roles: tuple[dict[str, Any], ...] = ()
    support: tuple[dict[str, Any], ...] = ()
    price: dict[str, Any] | None = None
    sla_default_element: str | None = Field(None, alias="slaDefaultElement")
    service_levels: tuple[ServiceLevel, ...] = Field((), alias="slaProperties")
    context: Any = None
    authoritative_definitions: Descriptions = Field((), alias="authoritativeDefinitions")
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")
    contract_created: str | None = Field(None, alias="contractCreatedTs")

    @property
    def table(self) -> Table:
        """The contract's only table."""
        return self.tables[0]

    @property
    def columns(self) -> dict[str, Column]:
        """Columns by name, in the order of the contract."""
        return {column.name: column for column in self.table.properties}

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Names of the primary key columns, by `primaryKeyPosition`."""
        keys = [column for column in self.table.properties if column.primary_key]
        return tuple(c.name for c in sorted(keys, key=lambda c: c.primary_key_position or 0))

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """The foreign keys that rows must keep."""
        found = [
            relationship.foreign_key(column.name)
            for column in self.table.properties
            for relationship in column.relationships
            if relationship.is_enforced
        ]
        found += [each.foreign_key(None) for each in self.table.relationships if each.is_enforced]
        return tuple(dict.fromkeys(found))

    @property
    def sql_rules(self) -> tuple[tuple[str, Quality], ...]:
        """The SQL checks and the conditions on rows, each with the name of its column, or "" for the table."""
        everywhere = [*((name, column.quality) for name, column in self.columns.items()), ("", self.table.quality)]
        return tuple((name, rule) for name, rules in everywhere for rule in rules if rule.type in ("sql", "custom"))

    @property
    def datasets_read(self) -> tuple[str, ...]:
        """Names of the datasets whose tables its rules read; its own may be one of them."""
        names = [key.dataset for key in self.foreign_keys]
        names += [name for _, rule in self.sql_rules for name in rule.reads]
        return tuple(dict.fromkeys(names))

    @property
    def maximum_quarantined(self) -> float:
        """Share of a landing file's rows that may break the contract, in percent; a file with more is rejected."""
        return float(self._property(MAXIMUM_QUARANTINED, DEFAULT_MAXIMUM_QUARANTINED))

    @model_validator(mode="after")
    def _bounds_the_quarantine(self) -> Contract:
        self._check_property(MAXIMUM_QUARANTINED, _wrong_share)
        return self

    def _property(self, name: str, default: Any) -> Any:
        return next((entry.value for entry in self.custom_properties if entry.property == name), default)

    def _check_property(self, name: str, wrong_value: Callable[[Key, Any], list[tuple[Key, str, str]]]) -> None:
        """Check a custom property that may be there once.

        Args:
            name: its name.
            wrong_value: returns what is wrong with its value, by the key of the value.
        """
        problems: list[tuple[Key, str, str]] = []
        for index, entry in enumerate(self.custom_properties):
            key: Key = ("customProperties", index)
            named = entry.property.lower() if name.islower() else entry.property
            if entry.property == name:
                problems += wrong_value((*key, "value"), entry.value)
            elif difflib.get_close_matches(named, [name], cutoff=0.85):
                problems.append(((*key, "property"), name, repr(entry.property)))
        if sum(entry.property == name for entry in self.custom_properties) > 1:
            problems.append((("customProperties",), f"{name} at most once", "it twice"))
        if problems:
            raise KeyedError(*problems)

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """Columns that batch predictions copy from their input because the contract says so."""
        return tuple(self._property(PREDICTION_COLUMNS, ()))

    @model_validator(mode="after")
    def _names_prediction_columns(self) -> Contract:
        self._check_property(PREDICTION_COLUMNS, lambda key, value: _wrong_columns(key, value, tuple(self.columns)))
        return self

    @property
    def monitoring(self) -> DataMonitorSettings:
        """How the dataset is monitored."""
        return DataMonitorSettings.model_validate(self._property(MONITORING, {}), strict=False)

    @property
    def is_monitored(self) -> bool:
        """True if the dataset has a monitor."""
        return self.status != "retired" and self.monitoring.enabled

    @model_validator(mode="after")
    def _settings_of_the_monitor(self) -> Contract:
        self._check_property(MONITORING, lambda key, value: _wrong_settings(key, value, tuple(self.columns)))
        return self

    @property
    def engine(self) -> Engine:
        """The engine that reads the whole table: to profile it, to check it against the contract, and to train."""
        named: Engine = self._property(ENGINE, ENGINES[0])
        return named

    @model_validator(mode="after")
    def _names_an_engine(self) -> Contract:
        self._check_property(ENGINE, _wrong_engine)
        return self

    @property
    def ingest_schedule(self) -> str | None:
        """When to look for new data, as a cron expression in UTC; None to ingest on request only."""
        return None if self.status == "retired" else ingest_schedule(self.name, self.service_levels)

    @model_validator(mode="after")
    def _one_frequency(self) -> Contract:
        found = sum(level.property == FREQUENCY for level in self.service_levels)
        if found > 1:
            raise ValueError(f"at most one frequency in slaProperties; found {found}")
        return self

    @property
    def retention_column(self) -> Column | None:
        """The column that gives the age of rows, if rows are removed after the retention; None if they stay."""
        level = retention_level(self.service_levels)
        element = (level.element or self.sla_default_element) if level is not None else None
        return self.columns.get(_last_part(element)) if element else None

    @model_validator(mode="after")
    def _retention_can_be_kept(self) -> Contract:
        problems: list[tuple[Key, str, str]] = []
        found = [index for index, level in enumerate(self.service_levels) if level.property == RETENTION]
        if len(found) > 1:
            problems.append((("slaProperties", found[1], "property"), f"at most one {RETENTION}", "another one"))
        for index in found[:1]:
            own = self.service_levels[index].element
            key: Key = ("slaProperties", index, "element") if own else ("slaDefaultElement",)
            element = own or self.sla_default_element
            column = self.columns.get(_last_part(element)) if element else None
            dated = [name for name, each in self.columns.items() if each.stored_as in ("date", "timestamp")]
            if element and (column is None or column.name not in dated):
                what = f"{element!r}, which is {column.logical_type}" if column is not None else repr(element)
                expected = f"one of {', '.join(dated)}" if dated else "no element, because no column is a date"
                problems.append((key, f"{expected} (the age of a row)", what))
        if problems:
            raise KeyedError(*problems)
        return self

    @model_validator(mode="after")
    def _one_name(self) -> Contract:
        if self.table.name != self.name:
            raise KeyedError((("schema", 0, "name"), f"{self.name!r}, as in name", repr(self.table.name)))
        return self


def _last_part(element: str) -> str:
    """Return the column of an element of a service level: `column`, or `table.column`."""
    return element.rpartition(".")[2]


def _wrong_share(key: Key, value: Any) -> list[tuple[Key, str, str]]:
    """Return what is wrong with the greatest share of rows in quarantine."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
        return []
    return [(key, "a percentage from 0 to 100", repr(value))]


def _wrong_columns(key: Key, value: Any, columns: tuple[str, ...]) -> list[tuple[Key, str, str]]:
    """Return what is wrong with the list of columns that batch predictions copy."""
    if not isinstance(value, list):
        return [(key, "a list of columns", repr(value))]
    return [
        ((*key, place), f"one of {', '.join(columns)}, once", repr(name))
        for place, name in enumerate(value)
        if name not in columns or name in value[:place]
    ]


def _wrong_engine(key: Key, value: Any) -> list[tuple[Key, str, str]]:
    """Return what is wrong with the name of an engine."""
    return [] if value in ENGINES else [(key, f"one of {', '.join(ENGINES)}", repr(value))]


def _wrong_settings(key: Key, value: Any, columns: tuple[str, ...]) -> list[tuple[Key, str, str]]:
    """Return what is wrong with the value of the custom property `monitoring`."""
    if not isinstance(value, dict):
        return [(key, f"an object with {', '.join(DataMonitorSettings.model_fields)}", repr(value))]
    try:
        # Strict, like the rest of the contract: JSON has no tuples, so the mode is that of JSON.
        settings = DataMonitorSettings.model_validate_json(json.dumps(value))
    except ValidationError as error:
        return [
            ((*key, *one["loc"]), "one of " + ", ".join(DataMonitorSettings.model_fields), "it here")
            if one["type"] == "extra_forbidden"
            else ((*key, *one["loc"]), one["msg"].removeprefix("Input should be "), repr(one["input"]))
            for one in error.errors()
        ]
    return [
        ((*key, "ignored_columns", index), f"one of {', '.join(columns)}", repr(name))
        for index, name in enumerate(settings.ignored_columns)
        if name not in columns
    ]
