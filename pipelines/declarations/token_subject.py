"""Subject of the tokens with which GitHub's jobs sign in to AWS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from pipelines.declarations.documents import Declaration

PLACE = "{environment}"
"""Stands for the name of the GitHub environment in a template."""

Repository = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$")]
"""A repository on GitHub, `owner/name`."""

SubjectTemplate = Annotated[
    str,
    StringConstraints(
        # One environment, and no wildcard: a role trusts the jobs of one environment.
        pattern=r"^[A-Za-z0-9_.:/@=-]*\{environment\}[A-Za-z0-9_.:/@=-]*$",
        max_length=500,
    ),
]
"""Text of a subject in which `{environment}` stands for the GitHub environment."""


class RepositoryIds(Declaration):
    """The ids of a GitHub repository and its owner. GitHub never changes or reuses them."""

    owner: Annotated[int, Field(ge=1)]
    repository: Annotated[int, Field(ge=1)]


def subject_of(repository: str, ids: RepositoryIds | None, template: str | None, environment: str) -> str:
    """Return the `sub` claim of the token of a job in a GitHub environment.

    Source: GitHub, "OpenID Connect reference", subject claims.

    Args:
        repository: `owner/name`.
        ids: ids that are part of the names; None if the names stand alone.
        template: text of a customised subject; None for GitHub's own form.
        environment: the job's GitHub environment.
    """
    return (template or default_template(repository, ids)).replace(PLACE, environment)


def default_template(repository: str, ids: RepositoryIds | None) -> str:
    """Return the template of GitHub's own form of the subject."""
    return f"{_repository_claim(repository, ids)}:environment:{PLACE}"


def _repository_claim(repository: str, ids: RepositoryIds | None) -> str:
    owner, _, name = repository.partition("/")
    if ids is not None:
        owner, name = f"{owner}@{ids.owner}", f"{name}@{ids.repository}"
    return f"repo:{owner}/{name}"


def customised_template(keys: Sequence[str], claims: Mapping[str, Any]) -> str:
    """Return the template of a subject that is made of claims.

    Args:
        keys: the claims in their order, as GitHub's customization lists them.
        claims: name → value of the claims that are equal for all jobs of the repository. `repo` is its whole text.

    Raises:
        ValueError: the environment is not among the keys, or a key differs from job to job, so that no role could trust
            one subject for each environment.
    """
    parts = []
    for key in keys:
        if key in ("context", "environment"):
            parts.append(f"environment:{PLACE}")
        elif key == "repo":
            parts.append(str(claims["repo"]))
        elif key in claims:
            parts.append(f"{key}:{claims[key]}")
        else:
            raise ValueError(f"the claim {key} differs from job to job")
    if not {"context", "environment"} & set(keys):
        raise ValueError("the subject does not name the environment")
    template = ":".join(parts)
    if not re.fullmatch(r"[^{}]*\{environment\}[^{}]*", template):
        raise ValueError("the subject names the environment twice")
    return template
