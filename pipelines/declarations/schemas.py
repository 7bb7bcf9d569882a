"""JSON Schemas of the files people write, so that editors complete and check them."""

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
"""Where the exported schemas are."""

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
    """File name → text of every exported JSON Schema (draft 2020-12)."""
    texts = {}
    for name, kind in KINDS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema()}
        texts[f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return texts


def outdated_schemas(folder: Path = FOLDER) -> list[Path]:
    """The files in `folder` that are not what `export_schemas` would write."""
    texts = {folder / name: text for name, text in json_schemas().items()}
    return [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]


def export_schemas(folder: Path = FOLDER) -> list[Path]:
    """Write the JSON Schemas into `folder`; the paths of those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = json_schemas()
    outdated = outdated_schemas(folder)
    for path in outdated:
        path.write_text(texts[path.name])
    return outdated
