"""Tokens of an OpenID Connect provider, exchanged for a role: what STS checks before it answers.

Source: STS API reference, "AssumeRoleWithWebIdentity"; IAM user guide, "Available keys for AWS web identity
federation".
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from laptop.aws.access.policy import Caller, Context, Grants, Need, refusal
from laptop.aws.access.principals import ACCOUNT, PARTITION, trust_of
from laptop.aws.access.request import Request

ACTION = "AssumeRoleWithWebIdentity"
LONGEST_TOKEN = 20_000  # characters; STS's own limit
_ALGORITHMS = ["RS256", "ES256"]
_SKEW_SECONDS = 300
_PARAMETERS = ("Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy")


class TokenRefusedError(Exception):
    """The token buys nothing.

    Attributes:
        status: of HTTP.
        code: by which STS says why.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class WebIdentity:
    """Who a token speaks of.

    Attributes:
        provider: ARN of the identity provider that vouches.
        host: the provider's name in condition keys (`token.actions.githubusercontent.com`).
        audience, subject: the token's `aud` and `sub`.
    """

    provider: str
    host: str
    audience: str
    subject: str

    @property
    def context(self) -> Context:
        """The condition keys that describe the identity."""
        return {
            f"{self.host}:aud": (self.audience,),
            f"{self.host}:sub": (self.subject,),
            "aws:federatedprovider": (self.provider,),
        }


def published_keys(folder: Path, host: str) -> Path:
    """The file with the public keys of an issuer, a JWK set. On AWS, STS fetches it from the issuer's address."""
    return folder / f"{quote(host, safe='')}.json"


def asks_for(request: Request) -> bool:
    """Whether an unsigned request exchanges a token; STS takes nothing else unsigned."""
    return request.method == "POST" and request.path == "/" and not request.query and request.action == ACTION


def judged_body(request: Request, issuers: Path) -> bytes:
    """The request's body, with nothing in it but what was judged here.

    Args:
        issuers: the folder of published keys.

    Raises:
        TokenRefusedError: the token is not good, or the role does not trust whom it speaks of.
    """
    identity = identify(request.form.get("WebIdentityToken", ""), issuers)
    role = request.form.get("RoleArn", "")
    need = Need(
        f"sts:{ACTION}",
        role,
        {"sts:rolesessionname": _some(request.form.get("RoleSessionName", ""))},
        trust_of(role) or {"Statement": []},
        policy_rules=True,
    )
    caller = Caller(identity.provider, frozenset(), "", provider=identity.provider)
    why = refusal(caller, Grants(), need, identity.context)
    if why is not None:
        raise TokenRefusedError(
            403, "AccessDenied", f"Not authorized to perform sts:{ACTION} on {role} as {identity.subject} {why}"
        )
    # The emulator looks no further into it.
    parameters = {name: request.form[name] for name in _PARAMETERS if name in request.form}
    return urlencode({**parameters, "WebIdentityToken": "judged"}).encode()


def identify(token: str, issuers: Path, now: float | None = None) -> WebIdentity:
    """Who a token speaks of, once everything about it was checked.

    Args:
        token: a signed JWT, compact.
        issuers: the folder of published keys.
        now: the time to judge it by, in seconds since 1970.

    Raises:
        TokenRefusedError: no provider of this account vouches for it, or it is not for this account, or not now.
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
        raise TokenRefusedError(400, "IDPCommunicationError", "The issuer publishes no keys on this machine.") from None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _invalid(f"The token is not one that the issuer signed: {error}") from None
    moment = time.time() if now is None else now
    if _number(claims, "exp") <= moment:
        raise TokenRefusedError(400, "ExpiredTokenException", "The token has expired.")
    if max(_number(claims, "iat"), _number(claims, "nbf", 0)) > moment + _SKEW_SECONDS:
        raise _invalid("The token is not valid yet.")
    audience, subject = claims.get("aud"), claims.get("sub")
    if not isinstance(audience, str) or audience not in audiences:
        raise _invalid("Incorrect token audience")
    if not isinstance(subject, str) or not subject:
        raise _invalid("The token speaks of nobody.")
    return WebIdentity(arn, host, audience, subject)


def _unverified_issuer(token: str) -> str:
    """Who the token says has signed it: only to find the keys that prove it."""
    from joserfc.jws import extract_compact

    claims = json.loads(extract_compact(token.encode()).payload or b"{}")
    issuer = claims["iss"]
    if not isinstance(issuer, str):
        raise ValueError("iss is no text")
    return issuer


def _provider(issuer: str) -> tuple[str, str, list[str]]:
    """ARN, host and audiences of the account's provider for an issuer."""
    from moto.iam.models import iam_backends

    host = issuer.removeprefix("https://")
    for arn, provider in iam_backends[ACCOUNT][PARTITION].open_id_providers.items():
        if issuer.startswith("https://") and arn.endswith(f":oidc-provider/{host}"):
            return str(arn), host, list(provider.client_id_list)
    raise _invalid(f"No OpenIDConnect provider found in your account for {issuer}")


def _number(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"The token's {name} is no time.")
    return float(value)


def _invalid(message: str) -> TokenRefusedError:
    return TokenRefusedError(400, "InvalidIdentityToken", message)


def _some(value: str) -> tuple[str, ...]:
    return (value,) if value else ()
