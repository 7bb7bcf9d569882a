"""OIDC tokens of jobs: GitHub as an identity provider for the cloud."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from laptop.github.trust import ISSUER
from pipelines.declarations.atomic_files import write_atomically

LIFETIME_SECONDS = 300
"""Lifetime of GitHub's own tokens."""


class Issuer:
    """Signs tokens in place of https://token.actions.githubusercontent.com.

    Args:
        folder: the server's folder. It keeps the private key, which only its owner can read.
        published: file for the public key, as a JWK set; GitHub serves it under `/.well-known/jwks`.
    """

    def __init__(self, folder: Path, published: Path) -> None:
        self._private = folder / "oidc-key.pem"
        self._published = published

    def token(self, claims: Mapping[str, str], *, now: float | None = None) -> str:
        """Return a signed token for a job.

        Args:
            claims: claims about the job: `sub`, `aud`, ….
            now: start of its lifetime, in Unix seconds; the current time if None.
        """
        from joserfc import jwt

        key = self._key()
        start = int(time.time() if now is None else now)
        times = {"iat": start, "nbf": start, "exp": start + LIFETIME_SECONDS}
        full = {**claims, **times, "iss": f"https://{ISSUER}", "jti": secrets.token_hex(16)}
        return str(jwt.encode({"alg": "ES256", "kid": key.kid}, full, key, algorithms=["ES256"]))

    def _key(self) -> Any:
        """Return the key. The first call creates and publishes it."""
        from joserfc.jwk import ECKey, KeySet

        with FileLock(self._private.with_suffix(".lock")):
            if not self._private.exists():
                write_atomically(self._private, ECKey.generate_key("P-256").as_pem(private=True).decode())
            key = ECKey.import_key(self._private.read_bytes(), {"use": "sig", "alg": "ES256"})
            key.ensure_kid()
            public = json.dumps(KeySet([key]).as_dict(private=False))
            if not self._published.exists() or self._published.read_text(encoding="utf-8") != public:
                self._published.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_atomically(self._published, public)
        return key
