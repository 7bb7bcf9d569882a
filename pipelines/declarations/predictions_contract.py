"""Contract of the dataset that holds a model's batch predictions. It follows from the model and its dataset."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count
from typing import Any

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.data_monitoring import MONITORING
from pipelines.declarations.model import Model
from pipelines.declarations.names import predictions_name
from pipelines.declarations.service_level import RETENTION

BATCH_COLUMN = "batch"
ROW_COLUMN = "row"
BUNDLE_COLUMN = "bundle"
PREDICTION_COLUMN = "prediction"
REFUSED_COLUMN = "refused"

_BATCH_DIGITS = (32, 12)
"""Number of digest digits that name a batch in its rows: today's, then that of earlier versions. Twelve were too few:
another input with the same digits can be found."""

PROBABILITY = "probability_"
"""Start of the names of the columns with the probabilities of classes. A bundle knows its classes, so the job that
writes the table adds the columns."""

_OWN = (BATCH_COLUMN, ROW_COLUMN, BUNDLE_COLUMN, PREDICTION_COLUMN, REFUSED_COLUMN)

LONGEST_NAME = 63
"""Size limit of the name of a column."""

_NAME = "predictions"
"""Name of the contract while it is checked: the name of a model leaves no room for the suffix."""


def copied_columns(source: Contract, *, read: Contract | None = None) -> dict[str, str]:
    """Return the columns that batch predictions copy: name in the input → name in the table.

    They are the keys without personal data, and the columns that the contract lists in `predictionColumns`.

    Args:
        source: contract of the dataset that the model is trained on.
        read: contract of the dataset that is predicted, if it is another one. What it classifies is not copied either,
            unless it lists the column, too.
    """
    names = dict.fromkeys([*source.primary_key, *source.prediction_columns])
    kept = [name for name in names if name in source.prediction_columns or not is_personal(source.columns[name])]
    if read is not None:
        kept = [
            name
            for name in kept
            if name in read.columns and (name in read.prediction_columns or not is_personal(read.columns[name]))
        ]
    found: dict[str, str] = {}
    for name in kept:
        found[name] = _free(name, {*found.values(), *(each for each in kept if not _is_taken(each))})
    return found


def _is_taken(name: str) -> bool:
    """Return True if the table has another column of that name, or may get one."""
    return name in _OWN or name.startswith(PROBABILITY)


def _free(name: str, others: Collection[str]) -> str:
    """Return a name for a copied column that no other column of the table has."""
    if not _is_taken(name):
        return name
    for number in count(1):
        ending = "_of_input" if number == 1 else f"_of_input_{number}"
        free = f"{name[: LONGEST_NAME - len(ending)]}{ending}"
        if free not in others:
            return free
    raise AssertionError("unreachable")


def batch_names(batch: str) -> tuple[str, ...]:
    """Return how rows name their batch: first as they are written now, then as earlier versions wrote them.

    Args:
        batch: digest of the batch prediction.
    """
    return tuple(batch.removeprefix("sha256:")[:digits] for digits in _BATCH_DIGITS)


def is_predictions(contract: Contract) -> bool:
    """Return True if a contract is that of a model's batch predictions."""
    return contract.id == _id_of(contract.name)


def _id_of(dataset: str) -> str:
    return f"urn:mlops:predictions:{dataset}"


def predictions_contract(model: Model, source: Contract) -> Contract:
    """Return the contract of the dataset of a model's batch predictions.

    Args:
        model: the model.
        source: contract of the dataset that the model is trained on.
    """
    named = {
        "apiVersion": source.api_version,
        "kind": source.kind,
        "id": _id_of(predictions_name(model.name)),
        "name": _NAME,
        "version": source.version,
        "status": "active",
        "description": {
            "purpose": f"Batch predictions of {model.name}: a row for each row of an input.",
            "usage": model.intended_use,
        },
        "team": {"name": model.owner},
        "customProperties": [{"property": MONITORING, "value": {"enabled": False}}],
        "schema": [
            {
                "name": _NAME,
                "dataGranularityDescription": "One row a row of an input.",
                "properties": _properties(model, source),
            }
        ],
    }
    if model.batch.retention_days is not None:
        named["slaProperties"] = [{"property": RETENTION, "value": model.batch.retention_days, "unit": "d"}]
    if source.domain is not None:
        named["domain"] = source.domain
    made = Contract.model_validate(named, strict=False)
    table = made.table.model_copy(update={"name": predictions_name(model.name)})
    return made.model_copy(update={"name": predictions_name(model.name), "tables": (table,)})


def _properties(model: Model, source: Contract) -> list[dict[str, Any]]:
    batch = "First digits of the digest of the input and the bundle."
    return [
        {**_text(BATCH_COLUMN, batch), "required": True, "primaryKey": True, "primaryKeyPosition": 1},
        {
            "name": ROW_COLUMN,
            "logicalType": "integer",
            "description": "Number of the row in the input, from 1.",
            "required": True,
            "primaryKey": True,
            "primaryKeyPosition": 2,
        },
        *(_copied(source.columns[name], name, free) for name, free in copied_columns(source).items()),
        {
            "name": PREDICTION_COLUMN,
            "logicalType": _predicted_type(model, source.columns[model.target]),
            "description": f"Predicted {model.target}; null if the row was refused.",
            **_marks(source.columns[model.target]),
        },
        _text(REFUSED_COLUMN, "Why the row has no prediction; null if it has one."),
        {**_text(BUNDLE_COLUMN, "Digest of the bundle that predicted."), "required": True},
    ]


def _text(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "logicalType": "string", "description": description}


def _copied(column: Column, name: str, free: str) -> dict[str, Any]:
    """Return a column with the type and the classification of the input's, but without its rules."""
    copied: dict[str, Any] = {
        "name": free,
        "logicalType": column.logical_type,
        "description": column.description or f"{name} of the input.",
        **_marks(column),
    }
    if column.physical_type is not None:
        copied["physicalType"] = column.physical_type
    return copied


def _marks(column: Column) -> dict[str, Any]:
    """Return what a contract says of the protection of a column. A prediction says of a person what its target says."""
    marks: dict[str, Any] = {"tags": list(column.tags)}
    if column.classification is not None:
        marks["classification"] = column.classification
    return marks


def _predicted_type(model: Model, target: Column) -> str:
    if model.task == "regression":
        return "number"
    return "string" if target.logical_type == "string" else "integer"
