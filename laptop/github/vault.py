"""The repository's secrets and variables, and those of its environments."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.files import write_atomically

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Vault:
    """One file, readable by its owner only, apart from the rest of the forge's state.

    Args:
        folder: the forge's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "secrets.json"

    def set_secret(self, name: str, value: str, environment: str = "") -> None:
        """Set a secret of the repository, or of one environment."""
        self._set("secrets", name, value, environment)

    def set_variable(self, name: str, value: str, environment: str = "") -> None:
        """Set a variable (`vars.NAME`) of the repository, or of one environment."""
        self._set("variables", name, value, environment)

    def secrets(self, environment: str) -> dict[str, str]:
        """What a job sees: the repository's secrets, and over them those of its environment ("" for none)."""
        return self._merged("secrets", environment)

    def variables(self, environment: str) -> dict[str, str]:
        """As `secrets`, of the variables."""
        return self._merged("variables", environment)

    def _merged(self, kind: str, environment: str) -> dict[str, str]:
        groups = self._read().get(kind, {})
        return {**groups.get("", {}), **(groups.get(environment, {}) if environment else {})}

    def _set(self, kind: str, name: str, value: str, environment: str) -> None:
        if not _NAME.fullmatch(name) or name.upper().startswith("GITHUB_"):
            raise MlopsError(f"{name!r} is not a name for a secret or a variable")
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self._read()
            content.setdefault(kind, {}).setdefault(environment, {})[name.upper()] = value
            write_atomically(self.path, json.dumps(content))

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_bytes())) if self.path.exists() else {}
