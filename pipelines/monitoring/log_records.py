"""Records of the inference log as Arrow tables: the lines that servers write, and the Parquet files they become.

Format of the lines: see `pipelines.serving.inference_log`. A Parquet file holds records of one hour and one bundle:

    inference/<model>/<year>/<month>/<day>/<hour>/<bundle>-<number>.parquet

It has the columns of the lines, and `source`: the name of the object that a record was in. A reader leaves out objects
that a Parquet file of the same hour names, so each record counts once while objects are being replaced.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from pipelines.declarations.bundle import RequestSchema

LINES = ".jsonl"
"""How the name of an object with lines ends."""

SOURCE = "source"

HEAD = (
    ("time", pa.string()),
    ("bundle", pa.string()),
    ("id", pa.string()),
    ("rows", pa.int32()),
    ("status", pa.int16()),
    ("sample", pa.float64()),
    ("withheld", pa.list_(pa.string())),
)
"""Columns that do not depend on the bundle."""

_NAME = re.compile(r"([0-9a-f]{64})-(\d{5,9})\.parquet")
_ARROW: dict[str, pa.DataType] = {"BOOL": pa.bool_(), "BYTES": pa.string()}
_INTEGERS = ("INT32", "INT64")
_EXPONENT = re.compile(rb"[0-9][eE][+]?[0-9]{3}")
"""Occurs in every number that Arrow refuses, and by chance in ids."""


class ParquetPart(NamedTuple):
    """What the name of a Parquet file states.

    Attributes:
        bundle: digest of the bundle.
        number: position among the files of this hour and bundle, from 0.
    """

    bundle: str
    number: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.bundle.removeprefix('sha256:')}-{self.number:05d}.parquet"


def parquet_part(key: str) -> ParquetPart | None:
    """Return what the name of a Parquet file states; None for another object."""
    found = _NAME.fullmatch(key.rpartition("/")[2])
    return None if found is None else ParquetPart(f"sha256:{found[1]}", int(found[2]))


def record_form(schema: RequestSchema, *, whole: bool = False) -> pa.Schema:
    """Return the columns of a bundle's records.

    Args:
        schema: request schema of the bundle.
        whole: True for everything in a line, with integers as such. Otherwise only what monitors read, and every number
            as a float, because JSON does not tell 1 from 1.0.
    """
    inputs = [(each.name, _rows_of(each.datatype, whole=whole)) for each in schema.inputs]
    numbers = [each for each in schema.outputs if each.name != "label" or whole]
    outputs = [(each.name, _rows_of(each.datatype, whole=whole)) for each in numbers[: None if whole else 1]]
    groups = [
        (column.name, pa.list_(pa.string()))
        for tensor in schema.inputs
        for column in tensor.columns
        if column.values is not None
    ]
    return pa.schema(
        [
            *HEAD,
            *([("model", pa.string()), ("trace", pa.string())] if whole else []),
            ("inputs", pa.struct(inputs)),
            *([("groups", pa.struct(groups))] if groups else []),
            ("outputs", pa.struct(outputs)),
        ]
    )


def _rows_of(datatype: str, *, whole: bool) -> pa.DataType:
    exact = pa.int64() if whole and datatype in _INTEGERS else pa.float64()
    return pa.list_(pa.list_(_ARROW.get(datatype, exact)))


def parse_lines(content: bytes, form: pa.Schema, *, only: bool = False) -> pa.Table:
    """Parse lines of the log.

    Numbers of a request of one row are in the log as the client wrote them. Arrow refuses some that JSON allows, such
    as `0E400`. Lines that it cannot parse are tried again with such numbers in plain form. Otherwise one request could
    make thousands of records slow to read and impossible to compact.

    Args:
        content: the lines.
        form: the columns.
        only: True to refuse lines with anything that is not in the form.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: a line does not fit.
    """
    try:
        return _parse(content, form, only=only)
    except pa.ArrowInvalid:
        plain = with_plain_numbers(content)
        if plain == content:
            raise
        return _parse(plain, form, only=only)


def with_plain_numbers(content: bytes) -> bytes:
    """Return lines with numbers as Python writes them; lines that are not JSON stay as they are."""
    return b"".join(map(_with_plain_numbers, content.splitlines(keepends=True)))


def _with_plain_numbers(line: bytes) -> bytes:
    if not _EXPONENT.search(line):
        return line
    try:
        return json.dumps(json.loads(line), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (ValueError, RecursionError):
        return line


def _parse(content: bytes, form: pa.Schema, *, only: bool) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(content),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(len(content), 1)),
        parse_options=pj.ParseOptions(
            explicit_schema=form, unexpected_field_behavior="error" if only else "ignore"
        ),
    )  # fmt: skip


def read_part(content: bytes, form: pa.Schema, *, is_bundle: bool) -> tuple[pa.Table, set[str]]:
    """Read a Parquet file of the log.

    Args:
        content: the file.
        form: the columns to return.
        is_bundle: True if the form is that of the file's bundle; else only the columns that do not depend on it are
            read, and the others are null.

    Returns:
        The records, and the names of the objects that they were in.

    Raises:
        pa.ArrowInvalid: the file is broken.
    """
    wanted = form.names if is_bundle else [name for name, _ in HEAD]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=[SOURCE])
    there = [name for name in (*wanted, SOURCE) if name in file.schema_arrow.names]
    table = file.read(there, use_threads=False)
    sources = {str(each) for each in table[SOURCE].unique().to_pylist()}
    columns = [_column(table, field) for field in form]
    fields = [field.with_type(column.type) for field, column in zip(form, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)), sources


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    found = table[field.name]
    if field.name == "time" or found.type == field.type:  # times are text in lines
        return found
    return _cast(found, field.type)


def _cast(found: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_struct(wanted):
        array = found.combine_chunks()
        names = {array.type.field(at).name for at in range(array.type.num_fields)}
        children = [
            array.field(child.name).cast(child.type) if child.name in names else pa.nulls(len(array), child.type)
            for child in wanted
        ]
        return pa.chunked_array([pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())])
    return found.cast(wanted)
