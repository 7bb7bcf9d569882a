"""Subject of a job's OIDC token, which the trust policies of roles match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    keys: Sequence[str] = (),
    claims: Mapping[str, str] | None = None,
) -> str:
    """Return the `sub` claim of a job's OIDC token.

    Args:
        repository: `owner/name`.
        environment: deployment environment of the job, or "".
        event: name of the event.
        ref: the full ref.
        owner_id, repository_id: part of the subject if given (repositories created since mid-2026).
        keys: claims that make up a customised subject; () for GitHub's own form.
        claims: the other claims of the token.
    """
    owner, name = repository.split("/")
    if owner_id is not None:
        owner, name = f"{owner}@{owner_id}", f"{name}@{repository_id}"
    prefix = f"repo:{owner}/{name}"
    if environment:
        context = f"environment:{environment}"
    else:
        context = "pull_request" if event == "pull_request" else f"ref:{ref}"
    if not keys:
        return f"{prefix}:{context}"
    texts = {"repo": prefix, "context": context}
    return ":".join(texts.get(key) or f"{key}:{(claims or {}).get(key, '')}" for key in keys)
