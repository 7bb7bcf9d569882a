"""Foreign keys of a data contract: columns whose values must be in the table of a dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from pipelines.declarations.custom_properties import CustomProperty
from pipelines.declarations.documents import Declaration

ENFORCED = "enforced"
"""Custom property of a relationship: false if it only describes, for example a table outside this repository."""

_SHORT = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)\.([A-Za-z_][A-Za-z0-9_]*)")
_QUALIFIED = re.compile(r"/?schema/([A-Za-z0-9_-]+)/properties/([A-Za-z0-9_-]+)")


@dataclass(frozen=True)
class ForeignKey:
    """Columns whose values must be in the table of a dataset.

    Attributes:
        columns: names of the columns, in the contract that has the relationship.
        dataset: the dataset that must have the values; it may be the same.
        others: names of its columns, in the same order.
    """

    columns: tuple[str, ...]
    dataset: str
    others: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the rule in reports."""
        return f"foreignKey {self.dataset}"


class Relationship(Declaration):
    """Entry of `relationships`: a foreign key.

    Attributes:
        to: what it refers to, `<dataset>.<column>`; a list for several columns.
        from_: the columns that refer to it, in a relationship of the table.
        custom_properties: `enforced: false` if it only describes.
    """

    id: str | None = None
    type: Literal["foreignKey"] = "foreignKey"
    to: str | tuple[str, ...]
    from_: str | tuple[str, ...] | None = Field(None, alias="from")
    description: str | None = None
    custom_properties: tuple[CustomProperty, ...] = Field((), alias="customProperties")

    @property
    def is_enforced(self) -> bool:
        """True if rows must keep it, False if it only describes."""
        return not any(each.property == ENFORCED and each.value is False for each in self.custom_properties)

    @model_validator(mode="after")
    def _can_be_checked(self) -> Relationship:
        for each in self.custom_properties:
            if each.property == ENFORCED and not isinstance(each.value, bool):
                raise ValueError(f"true or false as value of {ENFORCED}; found {each.value!r}")
        if self.is_enforced:
            targets = _references(self.to)
            if len({dataset for dataset, _ in targets}) > 1:
                raise ValueError(f"columns of one dataset; found {', '.join(sorted({name for name, _ in targets}))}")
        return self

    def foreign_key(self, column: str | None) -> ForeignKey:
        """Return the foreign key.

        Args:
            column: the column that has the relationship; None if the table has it.

        Raises:
            ValueError: `from` is missing or not allowed, or its length differs from that of `to`.
        """
        if column is not None and self.from_ is not None:
            raise ValueError("no `from` in the relationship of a column; found one")
        if column is None and self.from_ is None:
            raise ValueError("`from` in a relationship of the table; found none")
        targets = _references(self.to)
        names = (column,) if column is not None else tuple(name for _, name in _references(self.from_ or ()))
        if len(names) != len(targets):
            raise ValueError(f"as many columns as it refers to ({len(targets)}); found {len(names)}")
        return ForeignKey(names, targets[0][0], tuple(name for _, name in targets))


def _references(value: str | tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the dataset and the column of each reference.

    Raises:
        ValueError: one has another form, or there is none.
    """
    texts = (value,) if isinstance(value, str) else value
    found = []
    for text in texts:
        file, mark, inside = text.rpartition("#")
        match = _SHORT.fullmatch(inside) or _QUALIFIED.fullmatch(inside)
        dataset = match.group(1) if match is not None else ""
        if match is None or (mark and file.rpartition("/")[2].removesuffix(".odcs.yaml") != dataset):
            raise ValueError(
                f"<dataset>.<column> of a contract in data-contracts/, or the custom property {ENFORCED} with the "
                f"value false; found {text!r}"
            )
        found.append((dataset, match.group(2)))
    if not found:
        raise ValueError("at least one column; found none")
    return found
