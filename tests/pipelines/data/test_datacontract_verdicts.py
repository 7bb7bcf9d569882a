"""Our verdicts on contract changes agree with those of datacontract-cli, or differ for a reason given here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.contract_differences import contract_differences
from pipelines.declarations.contract import Contract
from tests.pipelines.data.contract_edits import Edit, documents, edits, fingerprint

RECORD = json.loads((Path(__file__).parent / "datacontract_verdicts.json").read_text())
"""Written by `tools/record_datacontract_verdicts.py`."""

DIFFERS = {
    "column removed": "ingestion also rejects files that still have the column",
    "table: unique together stricter": "the primary key is one of the columns, so the rule is kept already",
    "table: unique together looser": "the primary key is one of the columns, so the rule stays kept",
}


def verdict(edit: Edit) -> tuple[bool, bool]:
    """Return whether a change breaks consumers, and whether it breaks producers."""
    before, after = (Contract.model_validate_json(json.dumps(document)) for document in documents(edit))
    found = contract_differences(before, after)
    return any(each.breaks_consumers for each in found), any(each.breaks_producers for each in found)


def test_the_record_is_of_these_contracts() -> None:
    assert RECORD["datacontract-cli"] == "1.2.8"
    assert {name: each["input"] for name, each in RECORD["verdicts"].items()} == {
        edit.name: fingerprint(edit) for edit in edits()
    }
    assert len(RECORD["verdicts"]) == len(edits()) >= 90


@pytest.mark.parametrize("edit", edits(), ids=lambda edit: edit.name)
def test_a_change_breaks_whom_datacontract_says(edit: Edit) -> None:
    recorded: dict[str, Any] = RECORD["verdicts"][edit.name]
    levels = [recorded["consumer"], recorded["producer"]]
    if any("warning" in found for found in levels):
        assert verdict(edit) == (True, True), "what cannot be decided counts as breaking"
        return
    theirs = tuple("error" in found for found in levels)
    assert (verdict(edit) != theirs) == (edit.name in DIFFERS)


@pytest.mark.parametrize("edit", [each for each in edits() if each.before != each.after], ids=lambda edit: edit.name)
def test_what_datacontract_lists_as_changed_is_listed(edit: Edit) -> None:
    before, after = (Contract.model_validate_json(json.dumps(document)) for document in documents(edit))
    recorded = RECORD["verdicts"][edit.name]
    unchanged = {"required false added", "required false removed", "text rule", "enum reordered"}
    if recorded["changes"] and edit.name not in unchanged and "whole bound" not in edit.name:
        assert contract_differences(before, after)
