"""Subject of a job's OIDC token, which the trust policies of roles match."""

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
    """Return the `sub` claim of a job's OIDC token.

    Args:
        repository: `owner/name`.
        environment: deployment environment of the job, or "".
        event: name of the event.
        ref: the full ref.
        owner_id, repository_id: part of the subject if given (repositories created since mid-2026).
    """
    owner, name = repository.split("/")
    if owner_id is not None:
        owner, name = f"{owner}@{owner_id}", f"{name}@{repository_id}"
    prefix = f"repo:{owner}/{name}"
    if environment:
        return f"{prefix}:environment:{environment}"
    return f"{prefix}:pull_request" if event == "pull_request" else f"{prefix}:ref:{ref}"
