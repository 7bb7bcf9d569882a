"""Secrets at rest: sealed with a key that lies beside the state, readable by its owner only."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from pipelines.declarations.errors import MlopsError

KEY_FILE = "secrets.key"


class Seal:
    """Seals and opens values (Fernet: AES-128-CBC with HMAC-SHA256).

    Args:
        folder: where the key lies, in the file `secrets.key`; it is made when the first secret is sealed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEY_FILE
        self._fernet: Fernet | None = None

    def seal(self, value: Any) -> str:
        """The sealed text of a JSON-like value."""
        return self._key(make=True).encrypt(json.dumps(value).encode()).decode()

    def open(self, sealed: str) -> Any:
        """The value of a sealed text; raises MlopsError when the key is missing or another one."""
        try:
            return json.loads(self._key(make=False).decrypt(sealed.encode()))
        except InvalidToken:
            raise MlopsError(
                f"a secret in the state beside {self._path} was not sealed with that key",
                fix="put back the key file that belongs to this state.",
            ) from None

    def _key(self, *, make: bool) -> Fernet:
        if self._fernet is None:
            if make and not self._path.exists():
                self._make()
            try:
                self._fernet = Fernet(self._path.read_bytes().strip())
            except FileNotFoundError:
                raise MlopsError(
                    f"the state has secrets, and the key that opens them is missing: {self._path}",
                    fix="put back the key file that belongs to this state.",
                ) from None
            except ValueError:
                raise MlopsError(
                    f"{self._path} is not a key",
                    fix="put back the key file that belongs to this state.",
                ) from None
        return self._fernet

    def _make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_name(f".{KEY_FILE}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, Fernet.generate_key())
            os.fsync(handle)
        finally:
            os.close(handle)
        # A link never replaces: of two processes that make the key at once, both go on with the same one.
        with contextlib.suppress(FileExistsError):
            os.link(draft, self._path)
        draft.unlink()
