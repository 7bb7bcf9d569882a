"""How the cloud knows a job."""

from __future__ import annotations

from laptop.github.trust import subject


def test_the_subject_has_the_form_that_github_signs() -> None:
    ref = "refs/heads/main"
    prod = "repo:acme/mlops:environment:prod"
    assert subject("acme/mlops", environment="prod", event="push", ref=ref) == prod
    assert subject("acme/mlops", environment="prod", event="pull_request", ref="x") == prod
    assert subject("acme/mlops", environment="", event="pull_request", ref="x") == "repo:acme/mlops:pull_request"
    assert subject("acme/mlops", environment="", event="push", ref=ref) == "repo:acme/mlops:ref:refs/heads/main"
    with_ids = subject("acme/mlops", environment="prod", event="push", ref=ref, owner_id=7, repository_id=9)
    assert with_ids == "repo:acme@7/mlops@9:environment:prod"
