"""Record what datacontract-cli says about pairs of contracts, for a test that compares our verdicts with its.

Its dependencies do not fit ours, so run this with a Python that has it, in the root of the repository:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install 'datacontract-cli[duckdb]==1.2.8'
    /tmp/peer/bin/python -m tools.record_datacontract_verdicts
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.pipelines.data.contract_edits import Document, documents, edits, fingerprint

RECORD = Path(__file__).parents[1] / "tests" / "pipelines" / "data" / "datacontract_verdicts.json"


def verdict(before: Document, after: Document) -> dict[str, Any]:
    """Return the levels that the changes have for consumers and for producers, and the paths that differ."""
    from datacontract.data_contract import DataContract  # type: ignore[import-not-found]
    from open_data_contract_standard.model import OpenDataContractStandard

    found: dict[str, Any] = {}
    for perspective in ("consumer", "producer"):
        old, new = (
            DataContract(data_contract=OpenDataContractStandard.model_validate(document))
            for document in (before, after)
        )
        result = old.breaking(new, perspective=perspective)
        found[perspective] = sorted({entry.level.value for entry in result.entries} or {"none"})
        found["changes"] = sorted(entry.path for entry in result.entries)
    return found


def main() -> None:
    """Write the record."""
    verdicts = {edit.name: {"input": fingerprint(edit), **verdict(*documents(edit))} for edit in edits()}
    record = {"datacontract-cli": version("datacontract-cli"), "verdicts": verdicts}
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
