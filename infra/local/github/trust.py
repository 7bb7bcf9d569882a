"""Would a role's trust policy let a job in? The decision that STS makes on AWS, and the emulated account does not."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


def subject(
    repository: str,
    *,
    environment: str,
    event: str,
    ref: str,
    owner_id: int | None = None,
    repository_id: int | None = None,
) -> str:
    """The `sub` of a job's OIDC token.

    Args:
        environment: of the job, or "".
        event: the event's name.
        ref: the full ref.
        owner_id, repository_id: put into the subject when given (repositories made since mid-2026).
    """
    owner, name = repository.split("/")
    if owner_id is not None:
        owner, name = f"{owner}@{owner_id}", f"{name}@{repository_id}"
    prefix = f"repo:{owner}/{name}"
    if environment:
        return f"{prefix}:environment:{environment}"
    return f"{prefix}:pull_request" if event == "pull_request" else f"{prefix}:ref:{ref}"


def refusal(policy: Mapping[str, Any], claims: Mapping[str, str]) -> str:
    """Why the trust policy refuses a web identity with these claims; "" when it lets it in.

    A Deny that fits, a principal other than GitHub's provider, a condition that does not hold or that is not known
    here: each refuses.
    """
    reasons: list[str] = []
    allowed = False
    for statement in _list(policy.get("Statement")):
        if "sts:AssumeRoleWithWebIdentity" not in _list(statement.get("Action")):
            reasons.append("the statement is not about sts:AssumeRoleWithWebIdentity")
            continue
        principals = (
            _list((statement.get("Principal") or {}).get("Federated"))
            if isinstance(statement.get("Principal"), Mapping)
            else []
        )
        if not any(str(principal).endswith(f":oidc-provider/{ISSUER}") for principal in principals):
            reasons.append(f"the principal is not the identity provider {ISSUER}")
            continue
        reason = _unmet(statement.get("Condition") or {}, claims)
        if statement.get("Effect") == "Deny":
            if not reason:
                return "a Deny statement fits"
        elif reason:
            reasons.append(reason)
        else:
            allowed = True
    return "" if allowed else ("; ".join(reasons) or "it has no statement")


def _unmet(conditions: Mapping[str, Any], claims: Mapping[str, str]) -> str:
    for operator, tests in conditions.items():
        for key, wanted in tests.items():
            claim = key.removeprefix(f"{ISSUER}:")
            found = claims.get(claim) if claim != key else None
            values = [str(value) for value in _list(wanted)]
            if operator == "StringEquals":
                met = found in values
            elif operator == "StringLike":
                met = found is not None and any(_like(found, value) for value in values)
            else:
                return f"the condition {operator} is not known here"
            if not met:
                return f"{claim} is {found!r}, and the policy wants {' or '.join(map(repr, values))}"
    return ""


def _like(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
