"""Subject of the tokens with which GitHub's jobs sign in to AWS."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.token_subject import RepositoryIds, SubjectTemplate, customised_template, subject_of

IDS = RepositoryIds(owner=1, repository=2)


@pytest.mark.parametrize(
    ("ids", "template", "subject"),
    [
        (None, None, "repo:acme/mlops:environment:prod"),
        (IDS, None, "repo:acme@1/mlops@2:environment:prod"),
        (IDS, "repository_owner_id:1:environment:{environment}", "repository_owner_id:1:environment:prod"),
    ],
)
def test_a_subject_names_one_environment(ids: RepositoryIds | None, template: str | None, subject: str) -> None:
    assert subject_of("acme/mlops", ids, template, "prod") == subject


@pytest.mark.parametrize(
    "template",
    [
        "repo:acme/mlops",
        "repo:*:environment:{environment}",
        "{environment}:{environment}",
        "a?{environment}",
        "{env}",
        "",
    ],
)
def test_a_template_that_trusts_more_than_one_environment_is_refused(template: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SubjectTemplate).validate_python(template)


def test_claims_are_joined_in_their_order() -> None:
    claims = {"repo": "repo:acme/mlops", "repository_id": 2}
    made = customised_template(["repository_id", "repo", "context"], claims)
    assert made == "repository_id:2:repo:acme/mlops:environment:{environment}"
    TypeAdapter(SubjectTemplate).validate_python(made)
