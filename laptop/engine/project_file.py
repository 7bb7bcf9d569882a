"""Reader of `Pulumi.yaml` and `Pulumi.<stack>.yaml`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.documents import Lines, parse_yaml, read_bytes
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem


@dataclass(frozen=True)
class ProjectFile:
    """A Pulumi project.

    Attributes:
        root: folder with `Pulumi.yaml`.
        main: file that `pulumi up` runs.
        defaults: configuration of every stack, by full key.
    """

    root: Path
    name: str
    main: Path
    defaults: dict[str, str]


@dataclass(frozen=True)
class StackConfiguration:
    """Configuration in the SDK's format: full key (`project:key`) → text; objects and lists are JSON."""

    values: dict[str, str]


def load_project(root: Path) -> ProjectFile:
    """Read `<root>/Pulumi.yaml`.

    Raises:
        DeclarationError: it is missing or invalid.
    """
    file = root / "Pulumi.yaml"
    document, lines = _mapping(file)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise _problem(file, lines, ("name",), "the name of the project", name)
    runtime = document.get("runtime")
    if (runtime.get("name") if isinstance(runtime, dict) else runtime) != "python":
        raise _problem(file, lines, ("runtime",), "python", runtime)
    main = document.get("main", ".")
    if not isinstance(main, str):
        raise _problem(file, lines, ("main",), "a folder or a file", main)
    program = root / main
    program = program / "__main__.py" if program.is_dir() else program
    if not program.is_file():
        raise _problem(file, lines, ("main",), "a folder with a __main__.py, or a Python file", main)
    return ProjectFile(root, name, program, _project_defaults(document.get("config") or {}, name))


def _project_defaults(config: dict[str, Any], project: str) -> dict[str, str]:
    """Return the defaults, each written as `key: value`, `key: {value: …}` or `key: {default: …}`."""
    defaults: dict[str, str] = {}
    for key, item in config.items():
        if isinstance(item, dict) and {"value", "default"} & item.keys():
            item = item.get("value", item.get("default"))
        elif isinstance(item, dict) and "type" in item:
            continue
        defaults[_full_key(key, project)] = _as_text(item)
    return defaults


def load_stack(project: ProjectFile, stack: str) -> StackConfiguration:
    """Read `<root>/Pulumi.<stack>.yaml`.

    Raises:
        DeclarationError: it is missing or invalid.
        MlopsError: there is no such stack, or it has `secure` values.
    """
    file = project.root / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = sorted(path.name.split(".", 1)[1].removesuffix(".yaml") for path in project.root.glob("Pulumi.*.yaml"))
        raise MlopsError(
            f"no stack `{stack}`: {file} does not exist",
            fix=f"use one of: {', '.join(known)}." if known else f"create {file.name}.",
        )
    document, lines = _mapping(file)
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise _problem(file, lines, ("config",), "keys and values", config)
    values = dict(project.defaults)
    for key, item in config.items():
        _refuse_secure(file, item, key)
        values[_full_key(key, project.name)] = _as_text(item)
    return StackConfiguration(values)


def _mapping(file: Path) -> tuple[dict[str, Any], Lines]:
    document, lines = parse_yaml(read_bytes(file), file)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise DeclarationError([Problem(file, 1, "", "keys and values", type(document).__name__)])
    return document, lines


def _problem(file: Path, lines: Lines, key: tuple[str | int, ...], expected: str, found: Any) -> DeclarationError:
    where = ".".join(str(part) for part in key)
    shown = "nothing" if found is None else repr(found)
    return DeclarationError([Problem(file, lines.get(key), where, expected, shown)])


def _full_key(key: str, project: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _as_text(value: Any) -> str:
    """Format a value as Pulumi passes it to a program: text unchanged, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, separators=(",", ":"), default=str)


def _refuse_secure(file: Path, value: Any, where: str) -> None:
    """Raise MlopsError for a `secure` value, which only its secrets provider can decrypt."""
    if isinstance(value, dict):
        if value.keys() == {"secure"}:
            raise MlopsError(
                f"{file}: `{where}` is a secure value, which the laptop cannot decrypt",
                fix="keep the value in Secrets Manager and configure its name, or use another stack on the laptop.",
            )
        for key, item in value.items():
            _refuse_secure(file, item, f"{where}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_secure(file, item, f"{where}[{index}]")
