"""Glue databases and tables. An Iceberg table gets its first metadata file here, as from Glue on AWS."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from laptop.aws.cloud import tolerating
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import to_aws, to_pulumi
from pipelines.declarations.errors import MlopsError

_GONE = "EntityNotFoundException"
_EXISTS = "AlreadyExistsException"
_DATABASE = ("name", "description", "locationUri", "parameters", "createTableDefaultPermissions")
_TABLE = (
    "name",
    "description",
    "owner",
    "parameters",
    "partitionKeys",
    "retention",
    "storageDescriptor",
    "tableType",
    "viewExpandedText",
    "viewOriginalText",
)


def _input(call: AwsCall, names: tuple[str, ...], operation: str, member: str) -> Any:
    given = {name: call.inputs[name] for name in names if call.inputs.get(name) is not None}
    return to_aws(given, call.cloud.shape("glue", operation).members[member], member)


def _create_database(call: AwsCall) -> str:
    with tolerating(*((_EXISTS,) if call.resuming else ())):
        call.client("glue").create_database(
            DatabaseInput=_input(call, _DATABASE, "CreateDatabase", "DatabaseInput"),
            **({"Tags": call.inputs["tags"]} if call.inputs.get("tags") else {}),
        )
    return f"{call.cloud.account}:{call.inputs['name']}"


def _read_database(call: AwsCall) -> Values | None:
    catalog, _, name = call.id.partition(":")
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("glue").get_database(Name=name)["Database"]
    if found is None:
        return None
    live = to_pulumi(found, {key: call.inputs.get(key) for key in _DATABASE if key in call.inputs})
    live |= _parameters(call, found)
    arn = f"arn:aws:glue:{call.region}:{catalog}:database/{name}"
    return {**live, "name": name, "catalogId": catalog, "arn": arn}


def _parameters(call: AwsCall, found: Values) -> Values:
    """Return the parameters for an import: their keys are the user's, not properties of AWS."""
    if "parameters" in call.inputs and call.inputs["parameters"] is None:
        return {"parameters": found.get("Parameters") or None}
    return {}


def _update_database(call: AwsCall) -> None:
    glue = call.client("glue")
    name = call.inputs["name"]
    glue.update_database(Name=name, DatabaseInput=_input(call, _DATABASE, "UpdateDatabase", "DatabaseInput"))
    arn = f"arn:aws:glue:{call.region}:{call.cloud.account}:database/{name}"
    retag(
        call,
        lambda tags: glue.tag_resource(ResourceArn=arn, TagsToAdd=tags),
        lambda keys: glue.untag_resource(ResourceArn=arn, TagsToRemove=keys),
    )


def _delete_database(call: AwsCall) -> None:
    with tolerating(_GONE):
        call.client("glue").delete_database(Name=call.id.partition(":")[2])


def _create_table(call: AwsCall) -> str:
    glue, inputs = call.client("glue"), call.inputs
    table_id = f"{call.cloud.account}:{inputs['databaseName']}:{inputs['name']}"
    if call.resuming and _read_table(replace(call, id=table_id)) is not None:
        return table_id
    table = _input(call, _TABLE, "CreateTable", "TableInput")
    if inputs.get("openTableFormatInput"):
        table["TableType"] = "EXTERNAL_TABLE"
        table["Parameters"] = {
            **table.get("Parameters", {}),
            "table_type": "ICEBERG",
            "metadata_location": _start_iceberg(call),
        }
    glue.create_table(DatabaseName=inputs["databaseName"], TableInput=table)
    return table_id


def _start_iceberg(call: AwsCall) -> str:
    """Write the metadata of an empty table and return its URL, as Glue does for `metadataOperation: CREATE`."""
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
    from pyiceberg.types import NestedField

    iceberg = call.inputs["openTableFormatInput"].get("icebergInput") or {}
    if iceberg.get("metadataOperation") != "CREATE" or iceberg.keys() - {"metadataOperation", "version"}:
        raise MlopsError(
            f"unsupported Iceberg input of the table `{call.inputs['name']}`: "
            f"expected metadataOperation CREATE and a version, found {iceberg}",
            fix="set partitioning and ordering by commits to the table.",
        )
    if call.inputs.get("partitionKeys"):
        raise MlopsError(
            f"the Iceberg table `{call.inputs['name']}` has partitionKeys, but Iceberg has its own partition spec",
            fix="remove partitionKeys.",
        )
    descriptor = call.inputs.get("storageDescriptor") or {}
    location = str(descriptor.get("location") or "").rstrip("/")
    if not location.startswith("s3://"):
        raise MlopsError(
            f"the Iceberg table `{call.inputs['name']}` has no location: expected s3://…, found {location!r}",
            fix="set storageDescriptor.location.",
        )
    fields = [
        NestedField(
            field_id=index,
            name=column["name"],
            field_type=_iceberg_type(column, call.inputs["name"]),
            required=False,
            doc=column.get("comment"),
        )
        for index, column in enumerate(descriptor.get("columns") or [], start=1)
    ]
    metadata = new_table_metadata(
        schema=Schema(*fields),
        partition_spec=UNPARTITIONED_PARTITION_SPEC,
        sort_order=UNSORTED_SORT_ORDER,
        location=location,
        properties={"format-version": str(iceberg.get("version") or "2")},
    )
    url = urlsplit(f"{location}/metadata/00000-{uuid.uuid4()}.metadata.json")
    call.client("s3").put_object(
        Bucket=url.netloc,
        Key=url.path.lstrip("/"),
        Body=metadata.model_dump_json(by_alias=True, exclude_none=True).encode(),
        ContentType="application/json",
    )
    return url.geturl()


# Hive types that have another name in Iceberg.
_HIVE = {"tinyint": "int", "smallint": "int", "integer": "int", "bigint": "long", "real": "float"}


def _iceberg_type(column: Values, table: str) -> Any:
    from pydantic import TypeAdapter, ValidationError
    from pyiceberg.types import IcebergType

    kind = str(column.get("type", "")).strip().lower()
    if kind.startswith(("varchar", "char")):
        kind = "string"
    try:
        return TypeAdapter(IcebergType).validate_python(_HIVE.get(kind, kind))
    except (ValidationError, ValueError, TypeError) as error:
        raise MlopsError(
            f"the column `{column.get('name')}` of the table `{table}` has the type `{column.get('type')}`, "
            "which is not a primitive type of Iceberg",
            fix="use a primitive type: boolean, int, bigint, float, double, decimal(p,s), date, timestamp, string.",
        ) from error


def _read_table(call: AwsCall) -> Values | None:
    catalog, database, name = call.id.split(":", 2)
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("glue").get_table(DatabaseName=database, Name=name)["Table"]
    if found is None:
        return None
    # Iceberg commits own the other properties.
    ours = ("description", "owner") if call.inputs.get("openTableFormatInput") else _TABLE
    live = to_pulumi(found, {key: call.inputs.get(key) for key in ours if key in call.inputs})
    live |= _parameters(call, found)
    return {
        **live,
        "name": name,
        "databaseName": database,
        "catalogId": catalog,
        "arn": f"arn:aws:glue:{call.region}:{catalog}:table/{database}/{name}",
    }


def _update_table(call: AwsCall) -> None:
    glue, inputs = call.client("glue"), call.inputs
    table = _input(call, _TABLE, "UpdateTable", "TableInput")
    if inputs.get("openTableFormatInput"):
        # Iceberg commits own the columns, parameters and location of an existing table.
        live = glue.get_table(DatabaseName=inputs["databaseName"], Name=inputs["name"])["Table"]
        table |= {key: live[key] for key in ("StorageDescriptor", "Parameters", "TableType") if key in live}
    glue.update_table(DatabaseName=inputs["databaseName"], TableInput=table)


def _delete_table(call: AwsCall) -> None:
    _, database, name = call.id.split(":", 2)
    with tolerating(_GONE):
        call.client("glue").delete_table(DatabaseName=database, Name=name)


ROWS = (
    Row(
        "aws:glue/catalogDatabase:CatalogDatabase",
        create=_create_database,
        read=_read_database,
        update=_update_database,
        delete=_delete_database,
        optional=(*_DATABASE, "tags", "region"),
        auto_name=AutoName(longest=255, lower=True),
        named_by=("name",),
        replaces=("name", "region"),
        computed=("arn", "catalogId", "region", "tagsAll"),
        form=dict.fromkeys(_DATABASE),
    ),
    Row(
        "aws:glue/catalogTable:CatalogTable",
        create=_create_table,
        read=_read_table,
        update=_update_table,
        delete=_delete_table,
        required=("databaseName",),
        optional=(*_TABLE, "openTableFormatInput", "region"),
        auto_name=AutoName(longest=255, lower=True),
        named_by=("name", "databaseName"),
        replaces=("name", "databaseName", "openTableFormatInput", "region"),
        computed=("arn", "catalogId", "region"),
        form=dict.fromkeys(_TABLE),
    ),
)
