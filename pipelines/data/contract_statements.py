"""Try the regular expressions and the SQL of a contract with the engine that will run them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.declarations.contract import Contract
from pipelines.declarations.project import Project


def check_statements(project: Project, contract: Contract) -> None:
    """Check that the engine understands every pattern, condition and query of a contract.

    Args:
        project: the project, whose other contracts give the columns of the tables that queries read.
        contract: the contract.

    Raises:
        MlopsError: it does not understand one.
    """
    if any(column.patterns for column in contract.columns.values()):
        from pipelines.data.validate import check_patterns

        check_patterns(contract)
    if contract.sql_rules:
        from pipelines.data.sql_rules import check_sql

        others = {name: project.contract(name) for name in contract.datasets_read if name in project.dataset_names}
        with tempfile.TemporaryDirectory(prefix="contract-") as folder:
            check_sql(contract, others, Path(folder))
