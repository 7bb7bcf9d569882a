"""Split rows into training and holdout by their keys alone, so no row moves as the data grows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = NDArray[np.uint64]


def in_holdout(keys: Hashes, seed: int, share: float) -> NDArray[np.bool_]:
    """Return which rows belong to the holdout.

    Args:
        keys: a hash for each row, from `hash_keys`.
        seed: selects the holdout.
        share: expected share of the rows, in (0, 1). Rows are drawn independently.
    """
    return _mix(keys ^ _mix(np.array([seed], np.uint64))) < np.uint64(share * 2.0**64)


def in_training(keys: Hashes, seed: int, holdout: float, sample: float | None) -> NDArray[np.bool_]:
    """Return which rows the training function gets: not those of the holdout, and of the others those of the sample.

    Args:
        keys: a hash for each row, from `hash_keys`.
        seed: selects the rows.
        holdout: share of the rows in the holdout; see `in_holdout`.
        sample: expected share of the other rows, in (0, 1), drawn independently of the holdout; None for all.
    """
    chosen = ~in_holdout(keys, seed, holdout)
    if sample is None:
        return chosen
    # Another hash than that of the holdout, whose rows are those with the least values.
    return chosen & (_mix(_mix(keys) ^ _mix(np.array([seed], np.uint64))) < np.uint64(sample * 2.0**64))


def hash_keys(rows: pa.Table, key: Sequence[str]) -> Hashes:
    """Hash each row's primary key. Equal values have equal hashes in types of any width.

    Raises:
        MlopsError: a column of the key is missing.
    """
    check_key(rows.column_names, key)
    hashes = np.zeros(rows.num_rows, np.uint64)
    for name in key:
        hashes = _mix(hashes ^ _column(rows.column(name)))
    return hashes


def check_key(names: Collection[str], key: Sequence[str]) -> None:
    """Check that a table has every column of a primary key.

    Raises:
        MlopsError: a column is missing.
    """
    if missing := [name for name in key if name not in names]:
        raise MlopsError(
            f"the table lacks the column {missing[0]!r} of the primary key", fix="ingest data with the current contract"
        )


def hash_values(columns: Sequence[NDArray[Any]]) -> Hashes:
    """Hash rows of floating-point numbers, integers and text. NaN equals NaN, and -0.0 equals 0.0."""
    import pyarrow as pa

    hashes = np.zeros(len(columns[0]), np.uint64)
    for values in columns:
        if values.dtype == object:
            encoded = pa.array(values, pa.large_string()).dictionary_encode()
            bits = _hash_texts(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        elif values.dtype.kind == "f":
            bits = (np.where(np.isnan(values), np.nan, values) + 0.0).astype(np.float64).view(np.uint64)
        else:
            bits = values.astype(np.int64).view(np.uint64)
        hashes = _mix(hashes ^ bits)
    return hashes


def _hash_texts(texts: Sequence[str | None]) -> Hashes:
    digests = b"".join(hashlib.blake2b((text or "").encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _column(column: pa.ChunkedArray) -> Hashes:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _hash_texts(column.to_pylist())
    if pa.types.is_floating(kind):
        # -0.0 + 0.0 is 0.0
        return (np.asarray(pc.fill_null(column, 0.0), np.float64) + 0.0).view(np.uint64)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0), np.int64).view(np.uint64)


def _mix(values: Hashes) -> Hashes:
    """Mix bits by the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
