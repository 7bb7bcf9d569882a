"""STS's checks when an OpenID Connect token is exchanged for a role's credentials.

Source: STS API reference, "AssumeRoleWithWebIdentity"; IAM user guide, "Available keys for AWS web identity
federation".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from laptop.aws.access.policy import Caller, Context, Document, Grants, Need, refusal
from laptop.aws.access.principals import ACCOUNT, PARTITION, trust_of
from laptop.aws.access.request import Request

ACTION = "AssumeRoleWithWebIdentity"
LONGEST_TOKEN = 20_000  # characters; the limit of STS
_ALGORITHMS = ["RS256", "ES256"]
_SKEW_SECONDS = 300
_PARAMETERS = ("Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy")


class TokenRefusedError(Exception):
    """The token was refused.

    Attributes:
        status: HTTP status.
        code: error code of STS.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class WebIdentity:
    """Identity in a verified token.

    Attributes:
        provider: ARN of the identity provider.
        host: name of the provider in condition keys (`token.actions.githubusercontent.com`).
        audience: `aud` of the token.
        subject: `sub` of the token.
    """

    provider: str
    host: str
    audience: str
    subject: str

    @property
    def context(self) -> Context:
        """Return the condition keys of the identity."""
        return {
            f"{self.host}:aud": (self.audience,),
            f"{self.host}:sub": (self.subject,),
            "aws:federatedprovider": (self.provider,),
        }


def published_keys(folder: Path, host: str) -> Path:
    """Return the file with an issuer's public keys (a JWK set), which STS fetches from the issuer on AWS."""
    return folder / f"{quote(host, safe='')}.json"


def asks_for(request: Request) -> bool:
    """Return True if a request exchanges a token, the only unsigned request that STS accepts."""
    return request.method == "POST" and request.path == "/" and not request.query and request.action == ACTION


def checked_body(request: Request, issuers: Path, trust: Callable[[str], Document | None] = trust_of) -> bytes:
    """Check a request and return its body with the checked parameters only.

    Args:
        issuers: folder with published keys.
        trust: returns the trust policy of a role that is in effect, or None.

    Raises:
        TokenRefusedError: the token is invalid, or the role does not trust its subject.
    """
    if any(name.startswith("PolicyArns.") for name in request.form):
        raise TokenRefusedError(501, "NotImplemented", "The laptop's STS takes a session policy as text only.")
    identity = identify(request.form.get("WebIdentityToken", ""), issuers)
    role = request.form.get("RoleArn", "")
    need = Need(
        f"sts:{ACTION}",
        role,
        {"sts:rolesessionname": _some(request.form.get("RoleSessionName", ""))},
        trust(role) or {"Statement": []},
        policy_rules=True,
    )
    caller = Caller(identity.provider, frozenset(), "", provider=identity.provider)
    why = refusal(caller, Grants(), need, identity.context)
    if why is not None:
        raise TokenRefusedError(
            403, "AccessDenied", f"Not authorized to perform sts:{ACTION} on {role} as {identity.subject} {why}"
        )
    # moto does not check the token.
    parameters = {name: request.form[name] for name in _PARAMETERS if name in request.form}
    return urlencode({**parameters, "WebIdentityToken": "checked"}).encode()


def identify(token: str, issuers: Path, now: float | None = None) -> WebIdentity:
    """Verify a token and return its identity.

    Args:
        token: signed JWT in compact form.
        issuers: folder with published keys.
        now: time for the check in seconds since 1970; the current time by default.

    Raises:
        TokenRefusedError: the token is invalid, expired, for another audience, or of an unknown issuer.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    if not 0 < len(token) <= LONGEST_TOKEN:
        raise _invalid(f"A token has 1 to {LONGEST_TOKEN} characters.")
    try:
        issuer = _unverified_issuer(token)
        arn, host, audiences = _provider(issuer)
        keys = KeySet.import_key_set(json.loads(published_keys(issuers, host).read_bytes()))
        claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
    except FileNotFoundError:
        raise TokenRefusedError(
            400, "IDPCommunicationError", "The issuer has not published keys on this machine."
        ) from None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _invalid(f"The token is not signed by its issuer: {error}") from None
    moment = time.time() if now is None else now
    if _number(claims, "exp") <= moment:
        raise TokenRefusedError(400, "ExpiredTokenException", "The token has expired.")
    if max(_number(claims, "iat"), _number(claims, "nbf", 0)) > moment + _SKEW_SECONDS:
        raise _invalid("The token is not valid yet.")
    audience, subject = claims.get("aud"), claims.get("sub")
    if not isinstance(audience, str) or audience not in audiences:
        raise _invalid("Incorrect token audience")
    if not isinstance(subject, str) or not subject:
        raise _invalid("The token has no subject.")
    return WebIdentity(arn, host, audience, subject)


def _unverified_issuer(token: str) -> str:
    """Return the issuer in an unverified token. Used only to find the keys that verify it."""
    from joserfc.jws import extract_compact

    claims = json.loads(extract_compact(token.encode()).payload or b"{}")
    issuer = claims["iss"]
    if not isinstance(issuer, str):
        raise ValueError("iss is not a string")
    return issuer


def _provider(issuer: str) -> tuple[str, str, list[str]]:
    """Return ARN, host and audiences of the account's provider for an issuer."""
    from moto.iam.models import iam_backends

    host = issuer.removeprefix("https://")
    for arn, provider in iam_backends[ACCOUNT][PARTITION].open_id_providers.items():
        if issuer.startswith("https://") and arn.endswith(f":oidc-provider/{host}"):
            return str(arn), host, list(provider.client_id_list)
    raise _invalid(f"No OpenIDConnect provider found in your account for {issuer}")


def _number(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"The token's {name} is not a valid timestamp.")
    return float(value)


def _invalid(message: str) -> TokenRefusedError:
    return TokenRefusedError(400, "InvalidIdentityToken", message)


def _some(value: str) -> tuple[str, ...]:
    return (value,) if value else ()
