"""How the cloud knows a job: the subject of its OIDC token, by which a role's trust policy lets it in."""

from __future__ import annotations

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
