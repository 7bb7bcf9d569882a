"""Encryption of secrets in the state, with a key file next to it that only its owner can read."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEY_FILE = "secrets.key"


class Seal:
    """Encrypts and decrypts values (Fernet: AES-128-CBC with HMAC-SHA256).

    Args:
        folder: holds the key in `secrets.key`, which the first encryption creates.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEY_FILE
        self._fernet: Fernet | None = None

    def seal(self, value: Any) -> str:
        """Encrypt a JSON-like value."""
        return self._key(make=True).encrypt(json.dumps(value).encode()).decode()

    def open(self, sealed: str) -> Any:
        """Decrypt a value.

        Raises:
            MlopsError: the key is missing or wrong.
        """
        from cryptography.fernet import InvalidToken

        try:
            return json.loads(self._key(make=False).decrypt(sealed.encode()))
        except InvalidToken:
            raise MlopsError(
                f"cannot decrypt a secret in the state: it was not encrypted with {self._path}",
                fix="restore the key file that belongs to this state.",
            ) from None

    def _key(self, *, make: bool) -> Fernet:
        from cryptography.fernet import Fernet  # slow to import, and most stacks have no secrets

        if self._fernet is None:
            if make and not self._path.exists():
                self._make()
            try:
                self._fernet = Fernet(self._path.read_bytes().strip())
            except FileNotFoundError:
                raise MlopsError(
                    f"cannot decrypt the secrets in the state: {self._path} does not exist",
                    fix="restore the key file that belongs to this state.",
                ) from None
            except ValueError:
                raise MlopsError(
                    f"{self._path} is not a valid key",
                    fix="restore the key file that belongs to this state.",
                ) from None
        return self._fernet

    def _make(self) -> None:
        from cryptography.fernet import Fernet

        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_name(f".{KEY_FILE}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, Fernet.generate_key())
            os.fsync(handle)
        finally:
            os.close(handle)
        # A link never overwrites, so two processes that create the key at once end up with the same one.
        with contextlib.suppress(FileExistsError):
            os.link(draft, self._path)
        draft.unlink()
