"""The OIDC tokens of jobs: GitHub as an identity provider, for the cloud to believe."""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laptop.github.trust import ISSUER
from pipelines.declarations.files import write_atomically

LIFETIME_SECONDS = 300
"""As long as GitHub's own tokens last."""


class Issuer:
    """Signs tokens as https://token.actions.githubusercontent.com does: with a key that only it has.

    Args:
        folder: the forge's; the private key stays there, readable by its owner only.
        published: where the public key is put, as a JWK set; on GitHub, under `/.well-known/jwks` of the issuer.
    """

    def __init__(self, folder: Path, published: Path) -> None:
        self._private = folder / "oidc-key.pem"
        self._published = published

    def token(self, claims: Mapping[str, str], *, now: float | None = None) -> str:
        """A signed token for a job.

        Args:
            claims: what it says of the job: `sub`, `aud`, and the others.
            now: seconds since 1970 at which it begins.
        """
        from joserfc import jwt

        key = self._key()
        begins = int(time.time() if now is None else now)
        times = {"iat": begins, "nbf": begins, "exp": begins + LIFETIME_SECONDS}
        full = {**claims, **times, "iss": f"https://{ISSUER}", "jti": secrets.token_hex(16)}
        return str(jwt.encode({"alg": "ES256", "kid": key.kid}, full, key, algorithms=["ES256"]))

    def _key(self) -> Any:
        """The key; made and published when it is first needed."""
        from joserfc.jwk import ECKey, KeySet

        with self._private.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._private.exists():
                write_atomically(self._private, ECKey.generate_key("P-256").as_pem(private=True).decode())
            key = ECKey.import_key(self._private.read_bytes(), {"use": "sig", "alg": "ES256"})
            key.ensure_kid()
            public = json.dumps(KeySet([key]).as_dict(private=False))
            if not self._published.exists() or self._published.read_text(encoding="utf-8") != public:
                self._published.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_atomically(self._published, public)
        return key
