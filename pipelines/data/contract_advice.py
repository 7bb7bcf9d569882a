"""Advice on a contract that is valid: what its readers will miss."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.data.schema_compatibility import UNBINDING
from pipelines.declarations.classification import OPEN_CLASSIFICATIONS
from pipelines.declarations.contract import Contract
from pipelines.declarations.service_level import FREQUENCY

RETIRING = ("deprecated", "retired")


def advise(contract: Contract) -> list[str]:
    """Return a line for each thing that readers of a contract will miss; empty if there is none."""
    return [*_on_dataset(contract), *_on_columns(contract)]


def _on_dataset(contract: Contract) -> Iterator[str]:
    description = contract.description or {}
    if not str(description.get("purpose") or "").strip() or "TODO" in str(description.get("purpose")):
        yield "description.purpose: say what the data is for; the catalogue shows it"
    if not contract.team:
        yield "team: name the owner; the catalogue shows it"
    if contract.status in UNBINDING:
        yield f"status: a {contract.status} contract binds nobody; set it to active when a team relies on it"
    if contract.status not in RETIRING and not any(level.property == FREQUENCY for level in contract.service_levels):
        yield f"slaProperties: without {FREQUENCY}, data is ingested on request only"
    if not any(rule.metric == "rowCount" for rule in contract.table.rules):
        yield "schema[0].quality: add rowCount, so that an empty file is rejected"


def _on_columns(contract: Contract) -> Iterator[str]:
    for name, column in contract.columns.items():
        if not (column.description or "").strip() or "TODO" in (column.description or ""):
            yield f"{name}: description: say what a value means, with its unit"
        numeric = column.logical_type in ("integer", "number")
        bounds = (column.options.minimum, column.options.exclusive_minimum)
        if numeric and not column.primary_key and column.valid_values is None and all(b is None for b in bounds):
            yield f"{name}: logicalTypeOptions: without minimum and maximum, a wrong unit goes unnoticed"
        classification = (column.classification or "").strip().lower()
        if classification in OPEN_CLASSIFICATIONS and any(tag.lower() in ("pii", "personal") for tag in column.tags):
            yield f"{name}: classification is {classification}, but its tags say that it is personal"
