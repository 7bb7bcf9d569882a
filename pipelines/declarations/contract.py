"""Data contract: the part of the Open Data Contract Standard v3.1 that this project enforces.

Source: https://bitol-io.github.io/open-data-contract-standard/v3.1.0/. Descriptive sections (team, support, price, …)
are accepted unread. Of the service levels, `frequency` schedules ingestion. Keys that the standard does not define are
rejected, and so are rules that we cannot check: a rule that is silently skipped is worse than none.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import ColumnName, Name
from pipelines.declarations.service_level import FREQUENCY, ServiceLevel, ingest_schedule

LogicalType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
StoredType = Literal["string", "int", "long", "float", "double", "boolean", "date", "timestamp"]
"""Column types of the Iceberg table that we use. Timestamps are in UTC."""

Scalar = str | int | float | bool

STORED_TYPES: dict[LogicalType, dict[str, StoredType]] = {
    "string": {"string": "string", "varchar": "string", "text": "string"},
    "integer": {"long": "long", "bigint": "long", "int": "int", "integer": "int"},
    "number": {"double": "double", "float": "float"},
    "boolean": {"boolean": "boolean", "bool": "boolean"},
    "date": {"date": "date"},
    "timestamp": {"timestamp": "timestamp"},
}
"""`logicalType` → `physicalType`, in lower case → stored type. The first of each is the default: it loses nothing."""


class TypeOptions(Declaration):
    """`logicalTypeOptions`: bounds on each value of a column.

    Attributes:
        minimum, maximum, exclusive_minimum, exclusive_maximum: a number, or an ISO 8601 date or timestamp.
        min_length, max_length: length of text in characters.
        pattern: regular expression (RE2) that the whole text must match.
    """

    minimum: Scalar | None = None
    maximum: Scalar | None = None
    exclusive_minimum: Scalar | None = Field(None, alias="exclusiveMinimum")
    exclusive_maximum: Scalar | None = Field(None, alias="exclusiveMaximum")
    min_length: Annotated[int, Field(ge=0)] | None = Field(None, alias="minLength")
    max_length: Annotated[int, Field(ge=0)] | None = Field(None, alias="maxLength")
    pattern: str | None = None


class QualityArguments(Declaration):
    """Arguments of a library metric.

    Attributes:
        valid_values: the allowed values, for `invalidValues`.
        properties: the columns that are unique together, for `duplicateValues` on the table.
    """

    valid_values: tuple[Scalar, ...] | None = Field(None, alias="validValues")
    properties: tuple[ColumnName, ...] | None = None


class Quality(Declaration):
    """Quality rule that uses a metric of the standard's library.

    Attributes:
        metric: the metric to compute.
        must_be: the value it must have. A rule with the bound 0 is enforced row by row; any other applies to the batch.
        must_be_greater_than, must_be_greater_or_equal_to, must_be_less_than, must_be_less_or_equal_to: bounds.
        unit: unit of the bounds, `rows` or `percent`.
    """

    id: str | None = None
    name: str | None = None
    description: str | None = None
    type: Literal["library"] = "library"
    metric: Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"]
    arguments: QualityArguments | None = None
    dimension: str | None = None
    severity: str | None = None
    business_impact: str | None = Field(None, alias="businessImpact")
    unit: Literal["rows", "percent"] = "rows"
    must_be: float | None = Field(None, alias="mustBe")
    must_be_greater_than: float | None = Field(None, alias="mustBeGreaterThan")
    must_be_greater_or_equal_to: float | None = Field(None, alias="mustBeGreaterOrEqualTo")
    must_be_less_than: float | None = Field(None, alias="mustBeLessThan")
    must_be_less_or_equal_to: float | None = Field(None, alias="mustBeLessOrEqualTo")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Quality:
        bounds = (
            self.must_be,
            self.must_be_greater_than,
            self.must_be_greater_or_equal_to,
            self.must_be_less_than,
            self.must_be_less_or_equal_to,
        )
        if all(bound is None for bound in bounds):
            raise ValueError("mustBe or another bound; found none")
        if self.metric == "invalidValues" and (self.arguments is None or not self.arguments.valid_values):
            raise ValueError("arguments.validValues for the metric invalidValues; found none")
        return self


class CustomProperty(Declaration):
    """Key and value that the standard does not define."""

    id: str | None = None
    property: str
    value: Any
    description: str | None = None


class Column(Declaration):
    """Column of the table: a property of the contract's schema object."""

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
    options: TypeOptions = Field(default_factory=lambda: TypeOptions(), alias="logicalTypeOptions")
    classification: str | None = None
    critical_data_element: bool = Field(False, alias="criticalDataElement")
    examples: tuple[Scalar, ...] = ()
    tags: tuple[str, ...] = ()
    quality: tuple[Quality, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")

    @field_validator("physical_type")
    @classmethod
    def _can_be_stored(cls, value: str | None, info: ValidationInfo) -> str | None:
        logical_type = info.data.get("logical_type")
        if value is not None and logical_type is not None and value.lower() not in STORED_TYPES[logical_type]:
            known = ", ".join(STORED_TYPES[logical_type])
            raise ValueError(f"one of {known} (logicalType is {logical_type}); found {value!r}")
        return value

    @property
    def stored_as(self) -> StoredType:
        """The type of the column in the Iceberg table."""
        types = STORED_TYPES[self.logical_type]
        return types[self.physical_type.lower()] if self.physical_type else next(iter(types.values()))

    @property
    def valid_values(self) -> tuple[Scalar, ...] | None:
        """The values that the contract allows, or None if it does not list them."""
        for rule in self.quality:
            if rule.metric == "invalidValues" and rule.arguments is not None:
                return rule.arguments.valid_values
        return None

    @model_validator(mode="after")
    def _rules_can_be_checked(self) -> Column:
        text = (self.options.min_length, self.options.max_length, self.options.pattern)
        if self.logical_type != "string" and any(option is not None for option in text):
            raise ValueError(
                f"minLength, maxLength and pattern on columns of type string only; found one on {self.logical_type}"
            )
        ranged = (
            self.options.minimum,
            self.options.maximum,
            self.options.exclusive_minimum,
            self.options.exclusive_maximum,
        )
        for bound in (bound for bound in ranged if bound is not None):
            if self.logical_type in ("string", "boolean"):
                raise ValueError(
                    "minimum and maximum on columns of type integer, number, date or timestamp only; "
                    f"found one on {self.logical_type}"
                )
            numeric = isinstance(bound, int | float) and not isinstance(bound, bool)
            if self.logical_type in ("integer", "number") and not numeric:
                raise ValueError(f"a number as bound of {self.logical_type}; found {bound!r}")
        for rule in self.quality:
            if rule.metric == "rowCount":
                raise ValueError("rowCount in the quality rules of the table; found it on a column")
        return self


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
    tags: tuple[str, ...] = ()
    properties: Annotated[tuple[Column, ...], Field(min_length=1)]
    quality: tuple[Quality, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")

    @model_validator(mode="after")
    def _columns_hold_together(self) -> Table:
        names = [column.name for column in self.properties]
        if len(set(names)) != len(names):
            raise ValueError("unique property names; found a duplicate")
        if not any(column.primary_key for column in self.properties):
            raise ValueError("at least one property with primaryKey: true; found none")
        return self


class Contract(Declaration):
    """`data-contracts/<dataset>.odcs.yaml`.

    Attributes:
        id: identifier of the contract.
        name: name of the dataset, of the file and of the schema object.
        version: version of the contract, `<major>.<minor>.<patch>`.
        tables: `schema` in the file; a list of one.
        service_levels: `slaProperties` in the file.
    """

    api_version: Literal["v3.1.0"] = Field(alias="apiVersion")
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
    authoritative_definitions: tuple[dict[str, Any], ...] = Field((), alias="authoritativeDefinitions")
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
    def ingest_schedule(self) -> str | None:
        """When to look for new data, as a cron expression in UTC; None to ingest on request only."""
        return None if self.status == "retired" else ingest_schedule(self.name, self.service_levels)

    @model_validator(mode="after")
    def _one_frequency(self) -> Contract:
        found = sum(level.property == FREQUENCY for level in self.service_levels)
        if found > 1:
            raise ValueError(f"at most one frequency in slaProperties; found {found}")
        return self

    @model_validator(mode="after")
    def _one_name(self) -> Contract:
        if self.table.name != self.name:
            raise ValueError(f"schema[0].name to equal name ({self.name!r}); found {self.table.name!r}")
        return self
