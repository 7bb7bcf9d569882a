"""Subject of the token with which the current job signs in to AWS."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Mapping

from pipelines.declarations.errors import MlopsError

AUDIENCE = "sts.amazonaws.com"
_SECONDS = 30


def read_subject(environ: Mapping[str, str] = os.environ) -> str:
    """Return the `sub` claim of the job's OIDC token. The token itself is not shown.

    Args:
        environ: the job's environment variables.

    Raises:
        MlopsError: this is no job with `id-token: write`, or GitHub gives no token.
    """
    url, token = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not token:
        raise MlopsError(
            "OIDC token: expected ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN, found none",
            fix="run this in a job with the permission `id-token: write`",
        )
    request = urllib.request.Request(f"{url}&audience={AUDIENCE}", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - the runner's own URL
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - see above
            value = str(json.load(answer)["value"])
        payload = value.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise MlopsError(f"OIDC token: GitHub gave none that can be read: {type(error).__name__}") from None
