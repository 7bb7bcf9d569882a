"""Check a Parquet file with Great Expectations on pandas: `contract_great_expectations.py FILE RULES`.

It prints the failing rows by column. It runs in the virtual environment `.venv/bench-contracts`, and imports nothing
from this repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe


def main(file: str, rules: str) -> None:
    """Check the file and print the number of failing rows of each column as JSON."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("files").add_parquet_asset("rows", path=file)
    batch = asset.add_batch_definition("all").get_batch()
    suite = gx.ExpectationSuite("contract", [gxe.ExpectTableRowCountToBeBetween(min_value=1)])
    for rule in json.loads(Path(rules).read_text()):
        name = rule["name"]
        suite.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=name))
        if rule["minimum"] is not None or rule["maximum"] is not None:
            suite.add_expectation(
                gxe.ExpectColumnValuesToBeBetween(column=name, min_value=rule["minimum"], max_value=rule["maximum"])
            )
        if rule["values"] is not None:
            suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=rule["values"]))
        if rule["unique"]:
            suite.add_expectation(gxe.ExpectColumnValuesToBeUnique(column=name))
    found: dict[str, int] = {}
    for result in batch.validate(suite, result_format="BASIC").results:
        assert not result.exception_info.get("raised_exception"), result
        if not result.success:
            name = result.expectation_config.kwargs["column"]
            found[name] = found.get(name, 0) + result.result["unexpected_count"]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
