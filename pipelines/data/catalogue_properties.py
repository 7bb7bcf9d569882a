"""What the Glue catalogue tells other tools about a dataset: description, owner, classifications, contract.

They are properties of the Iceberg table. Each commit copies them to the table in Glue, where Athena, Lake Formation and
search find them. Written by ingestion, because an update through Glue would drop the table's metadata pointer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.data.contract_page import owner_of
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract

if TYPE_CHECKING:
    from pyiceberg.table import Table

DESCRIPTION = "Description"
"""Property that pyiceberg also writes as the description of the table in Glue. Without it, a commit removes that."""

LONGEST_VALUE = 2000
"""Size limit of a property in characters; Glue allows 2,048 for a description."""


def catalogue_properties(contract: Contract) -> dict[str, str]:
    """Return the properties of a dataset's table that come from its contract; empty ones say that there are none."""
    classified = [
        f"{name}={column.classification}" for name, column in contract.columns.items() if column.classification
    ]
    personal = [name for name, column in contract.columns.items() if is_personal(column)]
    found = {
        DESCRIPTION: " ".join(str((contract.description or {}).get("purpose") or contract.name).split()),
        "mlops.contract-id": contract.id,
        "mlops.contract-version": contract.version,
        "mlops.contract-status": contract.status,
        "mlops.owner": owner_of(contract),
        "mlops.domain": contract.domain or "",
        "mlops.tags": ",".join(contract.tags),
        "mlops.classifications": ",".join(classified),
        "mlops.personal-columns": ",".join(personal),
    }
    return {key: value[:LONGEST_VALUE] for key, value in found.items()}


def changed_properties(table: Table, contract: Contract) -> dict[str, str]:
    """Return the properties that a table lacks, or has with another value."""
    return {key: value for key, value in catalogue_properties(contract).items() if table.properties.get(key) != value}
