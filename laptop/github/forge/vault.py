"""Secrets and variables of the repository and its environments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Vault:
    """Secrets and variables, in a file that only its owner can read.

    Args:
        folder: the server's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "secrets.json"

    def set_secret(self, name: str, value: str, environment: str = "") -> None:
        """Set a secret of the repository, or of an environment."""
        self._set("secrets", name, value, environment)

    def set_variable(self, name: str, value: str, environment: str = "") -> None:
        """Set a variable (`vars.NAME`) of the repository, or of an environment."""
        self._set("variables", name, value, environment)

    def forget(self, environment: str) -> None:
        """Delete the secrets and variables of an environment."""
        with FileLock(self.path.with_suffix(".lock")):
            content = self._read()
            for groups in content.values():
                groups.pop(environment, None)
            write_atomically(self.path, json.dumps(content))

    def secrets(self, environment: str) -> dict[str, str]:
        """Return the secrets of a job: the repository's, overridden by those of its environment ("" for none)."""
        return self._merged("secrets", environment)

    def variables(self, environment: str) -> dict[str, str]:
        """Return the variables of a job; see `secrets`."""
        return self._merged("variables", environment)

    def own(self, kind: str, environment: str) -> dict[str, str]:
        """Return the secrets or variables of an environment alone, or of the repository if it is "".

        Args:
            kind: "secrets" or "variables".
            environment: the environment.
        """
        return dict(self._read().get(kind, {}).get(environment, {}))

    def _merged(self, kind: str, environment: str) -> dict[str, str]:
        groups = self._read().get(kind, {})
        return {**groups.get("", {}), **(groups.get(environment, {}) if environment else {})}

    def _set(self, kind: str, name: str, value: str, environment: str) -> None:
        if not _NAME.fullmatch(name) or name.upper().startswith("GITHUB_"):
            raise MlopsError(
                f"{name!r} is not a valid name for a secret or a variable",
                fix="use letters, digits and _; not GITHUB_…",
            )
        with FileLock(self.path.with_suffix(".lock")):
            content = self._read()
            content.setdefault(kind, {}).setdefault(environment, {})[name.upper()] = value
            write_atomically(self.path, json.dumps(content))

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_bytes())) if self.path.exists() else {}
