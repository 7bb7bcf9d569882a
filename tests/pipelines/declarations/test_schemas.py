"""The exported JSON Schemas are up to date, and our contracts conform to the standard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from pipelines.declarations.schemas import FOLDER, json_schemas, outdated_schemas
from tests.sample_project import PROJECT, ROOT

KINDS = {
    "models/*/model.yaml": "model",
    "models/*/releases/*.yaml": "release",
    "data-contracts/*.odcs.yaml": "contract",
    "Pulumi.*.yaml": "stack",
}
FILES = [
    (path, kind) for root in (ROOT, PROJECT) for pattern, kind in KINDS.items() for path in sorted(root.glob(pattern))
]
"""Declarations of this repository and of the sample project."""


def test_the_exported_schemas_are_up_to_date() -> None:
    assert outdated_schemas() == []
    assert {path.name for path in FOLDER.iterdir()} == set(json_schemas())


@pytest.mark.parametrize(("path", "kind"), FILES, ids=lambda value: getattr(value, "name", value))
def test_the_schemas_accept_every_declaration(path: Path, kind: str) -> None:
    schema = json.loads((FOLDER / f"{kind}.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    for named in re.findall(r"yaml-language-server: \$schema=(\S+)", path.read_text()):
        assert (path.parent / named).resolve() == FOLDER / f"{kind}.schema.json", f"{named} does not resolve"


@pytest.mark.parametrize("path", [path for path, kind in FILES if kind == "contract"], ids=lambda path: path.name)
def test_our_contracts_are_valid_in_the_open_data_contract_standard(path: Path) -> None:
    contract = OpenDataContractStandard.from_file(str(path))
    assert contract.apiVersion == "v3.1.0"
    assert contract.schema_ is not None
    assert [p.name for p in contract.schema_[0].properties or []]
