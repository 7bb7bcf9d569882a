"""The exported JSON Schemas are up to date, and the standard agrees with our contracts."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from pipelines.declarations.schemas import FOLDER, json_schemas, outdated_schemas

ROOT = Path(__file__).parents[3]

FILES = [
    *((path, "model") for path in ROOT.glob("models/*/model.yaml")),
    *((path, "release") for path in ROOT.glob("models/*/releases/*.yaml")),
    *((path, "contract") for path in ROOT.glob("data-contracts/*.odcs.yaml")),
    *((path, "stack") for path in ROOT.glob("Pulumi.*.yaml")),
]


def test_the_exported_schemas_are_what_the_types_say() -> None:
    assert outdated_schemas() == []
    assert {path.name for path in FOLDER.iterdir()} == set(json_schemas())


@pytest.mark.parametrize(("path", "kind"), FILES, ids=lambda value: getattr(value, "name", value))
def test_an_editor_that_follows_the_schema_accepts_every_declaration(path: Path, kind: str) -> None:
    schema = json.loads((FOLDER / f"{kind}.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    first = path.read_text().splitlines()[0]
    named = path.parent / first.partition("$schema=")[2]
    assert named.resolve() == FOLDER / f"{kind}.schema.json"


@pytest.mark.parametrize("path", sorted(ROOT.glob("data-contracts/*.odcs.yaml")), ids=lambda path: path.name)
def test_the_open_data_contract_standard_reads_our_contracts(path: Path) -> None:
    contract = OpenDataContractStandard.from_file(str(path))
    assert contract.apiVersion == "v3.1.0"
    assert contract.schema_ is not None
    assert [p.name for p in contract.schema_[0].properties or []]
