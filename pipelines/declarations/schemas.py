"""JSON Schemas of the declarations, for completion and checks in editors."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from pipelines.declarations.bundle import Bundle, RequestSchema
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor, StackFile
from pipelines.declarations.model import Model
from pipelines.declarations.release import Release

FOLDER = Path(__file__).parent / "schemas"
"""Folder of the exported schemas."""

KINDS: dict[str, type[BaseModel]] = {
    "model": Model,
    "release": Release,
    "contract": Contract,
    "stack": StackFile,
    "environment": EnvironmentDescriptor,
    "bundle": Bundle,
    "request": RequestSchema,
}


def json_schemas() -> dict[str, str]:
    """Return file name → text of every JSON Schema (draft 2020-12)."""
    texts = {}
    for name, kind in KINDS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema()}
        texts[f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return texts


def outdated_schemas(folder: Path = FOLDER) -> list[Path]:
    """List the schema files that are missing or out of date."""
    texts = {folder / name: text for name, text in json_schemas().items()}
    return [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]


def export_schemas(folder: Path = FOLDER) -> list[Path]:
    """Write the JSON Schemas and return the paths of those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = json_schemas()
    outdated = outdated_schemas(folder)
    for path in outdated:
        path.write_text(texts[path.name])
    return outdated
