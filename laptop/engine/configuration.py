"""`Pulumi.yaml` and `Pulumi.<stack>.yaml`: the project, and the configuration of a stack as the SDK wants it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipelines.declarations.documents import Lines, parse_yaml, read_bytes
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem

PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 - the name of Pulumi's variable
PASSPHRASE_ROUNDS = 1_000_000
"""Of PBKDF2-HMAC-SHA256, as in Pulumi's passphrase secrets provider (sdk/go/common/resource/config/crypt.go)."""


@dataclass(frozen=True)
class ProjectFile:
    """A Pulumi project.

    Attributes:
        root: the folder with `Pulumi.yaml`.
        main: the file that `pulumi up` runs.
        defaults: configuration that the project gives to every stack, by full key.
    """

    root: Path
    name: str
    main: Path
    defaults: dict[str, str]


@dataclass(frozen=True)
class StackConfiguration:
    """Configuration as the SDK gets it: full key (`project:key`) → text; objects and lists are JSON."""

    values: dict[str, str]
    secret_keys: tuple[str, ...] = ()


def load_project(root: Path) -> ProjectFile:
    """Reads `<root>/Pulumi.yaml`; raises DeclarationError when it is missing or wrong."""
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
    """Pulumi allows `key: value`, and `key: {value: …}` or `{default: …}` with a type beside it."""
    defaults: dict[str, str] = {}
    for key, item in config.items():
        if isinstance(item, dict) and {"value", "default"} & item.keys():
            item = item.get("value", item.get("default"))
        elif isinstance(item, dict) and "type" in item:
            continue
        defaults[_full_key(key, project)] = _as_text(item)
    return defaults


def load_stack(project: ProjectFile, stack: str) -> StackConfiguration:
    """Reads `<root>/Pulumi.<stack>.yaml`.

    Raises:
        DeclarationError: it is missing or wrong.
        MlopsError: it has `secure` values that cannot be opened here.
    """
    file = project.root / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = sorted(path.name.split(".", 1)[1].removesuffix(".yaml") for path in project.root.glob("Pulumi.*.yaml"))
        raise MlopsError(
            f"there is no stack `{stack}`: {file} does not exist",
            fix=f"use one of: {', '.join(known)}." if known else f"write {file.name}.",
        )
    document, lines = _mapping(file)
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise _problem(file, lines, ("config",), "keys and values", config)
    values = dict(project.defaults)
    secrets: list[str] = []
    opener = _Opener(file, document)
    for key, item in config.items():
        full = _full_key(key, project.name)
        opened, secret = opener.open(item, key)
        values[full] = _as_text(opened)
        if secret:
            secrets.append(full)
    return StackConfiguration(values, tuple(secrets))


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
    """As Pulumi hands values to a program: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, separators=(",", ":"), default=str)


class _Opener:
    """Opens `secure` values that were sealed with a passphrase; refuses those of other secrets providers."""

    def __init__(self, file: Path, document: dict[str, Any]) -> None:
        self._file = file
        self._salt = document.get("encryptionsalt")
        self._provider = document.get("secretsprovider", "passphrase")
        self._key: bytes | None = None

    def open(self, value: Any, where: str) -> tuple[Any, bool]:
        """The value with every `secure` part opened, and whether there was one."""
        if isinstance(value, dict):
            if value.keys() == {"secure"}:
                return self._decrypt(str(value["secure"]), where), True
            opened = {key: self.open(item, f"{where}.{key}") for key, item in value.items()}
            return {key: item for key, (item, _) in opened.items()}, any(flag for _, flag in opened.values())
        if isinstance(value, list):
            items = [self.open(item, f"{where}[{index}]") for index, item in enumerate(value)]
            return [item for item, _ in items], any(flag for _, flag in items)
        return value, False

    def _decrypt(self, sealed: str, where: str) -> str:
        passphrase = os.environ.get(PASSPHRASE)
        salt = str(self._salt or "").split(":")
        if self._provider != "passphrase" or len(salt) < 2 or passphrase is None:
            why = (
                f"it was sealed by `{self._provider}`, which the local target cannot reach"
                if self._provider != "passphrase"
                else f"its passphrase is not known: {PASSPHRASE} is not set"
                if passphrase is None
                else "the file has no `encryptionsalt`"
            )
            raise MlopsError(
                f"{self._file}: `{where}` is a secure value, and {why}",
                fix=f"set {PASSPHRASE} to the passphrase it was sealed with, or use another stack locally.",
            )
        if self._key is None:
            raw = base64.b64decode(salt[1])
            self._key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), raw, PASSPHRASE_ROUNDS, 32)
        try:
            version, nonce, ciphertext = sealed.split(":")
            if version != "v1":
                raise ValueError(version)
            opened = AESGCM(self._key).decrypt(base64.b64decode(nonce), base64.b64decode(ciphertext), None)
        except (ValueError, InvalidTag):
            raise MlopsError(
                f"{self._file}: the secure value of `{where}` cannot be opened with this passphrase",
                fix=f"check {PASSPHRASE}; or set the value again with `pulumi config set --secret`.",
            ) from None
        return opened.decode()
