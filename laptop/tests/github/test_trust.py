"""Subject of a job's OIDC token."""

from __future__ import annotations

from laptop.github.trust import subject


def test_the_subject_has_the_form_of_github() -> None:
    ref = "refs/heads/main"
    prod = "repo:acme/mlops:environment:prod"
    assert subject("acme/mlops", environment="prod", event="push", ref=ref) == prod
    assert subject("acme/mlops", environment="prod", event="pull_request", ref="x") == prod
    assert subject("acme/mlops", environment="", event="pull_request", ref="x") == "repo:acme/mlops:pull_request"
    assert subject("acme/mlops", environment="", event="push", ref=ref) == "repo:acme/mlops:ref:refs/heads/main"
    with_ids = subject("acme/mlops", environment="prod", event="push", ref=ref, owner_id=7, repository_id=9)
    assert with_ids == "repo:acme@7/mlops@9:environment:prod"


def test_a_customised_subject_is_made_of_claims_in_their_order() -> None:
    claims = {"repository_owner_id": "7", "environment": "prod", "repository": "acme/mlops"}

    def customised(*keys: str, environment: str = "prod") -> str:
        options = {"owner_id": 7, "repository_id": 9, "keys": keys, "claims": claims}
        return subject("acme/mlops", environment=environment, event="push", ref="refs/heads/main", **options)  # type: ignore[arg-type]

    assert customised("repository_owner_id", "context") == "repository_owner_id:7:environment:prod"
    assert customised("repo", "environment") == "repo:acme@7/mlops@9:environment:prod"
    assert customised("context", "repository", environment="") == "ref:refs/heads/main:repository:acme/mlops"
