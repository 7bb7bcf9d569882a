"""Check that what contracts refer to in other contracts exists: foreign keys, and the tables of SQL checks."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import Key, dotted, parse_yaml, read_bytes
from pipelines.declarations.errors import DeclarationError, Problem
from pipelines.declarations.project import Project
from pipelines.declarations.relationships import ENFORCED, ForeignKey


def reference_problems(project: Project, dataset: str) -> Iterator[Problem]:
    """Yield a problem for each reference of a contract to what no contract of the project has.

    Args:
        project: the project.
        dataset: name of a valid contract.
    """
    contract = project.contract(dataset)
    if not contract.datasets_read:
        return
    file = project.contract_file(dataset)
    _, lines = parse_yaml(read_bytes(file), file)
    for foreign_key in contract.foreign_keys:
        key = _key_of(contract, foreign_key)
        for expected, found, fix in _misfits(project, contract, foreign_key):
            yield Problem(file, lines.get(key), dotted(key), expected, found, fix)
    for column, rule in contract.sql_rules:
        element = contract.columns[column] if column else contract.table
        for name in rule.reads:
            if name not in project.dataset_names:
                key = (*_path(contract, column), "quality", element.quality.index(rule), "query")
                found, known = f"{{{name}}}", ", ".join(project.dataset_names)
                yield Problem(
                    file, lines.get(key), dotted(key), f"object, property, or one of {known} in braces", found
                )


def _misfits(project: Project, contract: Contract, key: ForeignKey) -> Iterator[tuple[str, str, str]]:
    """Yield what was expected of a foreign key, what was found, and what to do."""
    if key.dataset not in project.dataset_names:
        known = ", ".join(project.dataset_names)
        fix = f"if its table is elsewhere, add the custom property {ENFORCED} with the value false to the relationship"
        yield f"a dataset of this repository: one of {known}", repr(key.dataset), fix
        return
    try:
        other = project.contract(key.dataset)
    except DeclarationError:  # told for that contract
        return
    for name, wanted in zip(key.columns, key.others, strict=True):
        column, target = contract.columns[name], other.columns.get(wanted)
        if target is None:
            yield f"a column of {key.dataset}: one of {', '.join(other.columns)}", repr(wanted), ""
        elif target.logical_type != column.logical_type:
            yield f"a column of the type {column.logical_type}, as {name}", f"{wanted} of {target.logical_type}", ""


def _key_of(contract: Contract, key: ForeignKey) -> Key:
    """Return the path of the relationship that makes a foreign key."""
    for column in contract.table.properties:
        for index, each in enumerate(column.relationships):
            if each.is_enforced and each.foreign_key(column.name) == key:
                return (*_path(contract, column.name), "relationships", index)
    found = (i for i, each in enumerate(contract.table.relationships) if each.is_enforced)
    return ("schema", 0, "relationships", next((i for i in found if _is(contract, i, key)), 0))


def _is(contract: Contract, index: int, key: ForeignKey) -> bool:
    return contract.table.relationships[index].foreign_key(None) == key


def _path(contract: Contract, column: str) -> Key:
    return ("schema", 0, "properties", list(contract.columns).index(column)) if column else ("schema", 0)
