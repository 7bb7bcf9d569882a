"""The subject of GitHub's tokens that the bootstrap's roles trust."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from infra.bootstrap.configuration import AccountConfig

PLAIN: dict[str, Any] = {"repository": "acme/mlops", "owner": "us", "cost_centre": "1"}


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "repo:acme/mlops:environment:prod"),
        ({"repository_ids": {"owner": 1, "repository": 2}}, "repo:acme@1/mlops@2:environment:prod"),
        (
            {"subject_template": "repository_owner_id:1:environment:{environment}"},
            "repository_owner_id:1:environment:prod",
        ),
    ],
)
def test_a_role_trusts_the_subject_of_one_environment(changes: dict[str, Any], subject: str) -> None:
    assert AccountConfig.model_validate(PLAIN | changes).subject("prod") == subject


@pytest.mark.parametrize("template", ["repo:acme/*:environment:{environment}", "repo:acme/mlops", "x{environment}?"])
def test_a_template_for_more_than_one_environment_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="subject_template"):
        AccountConfig.model_validate(PLAIN | {"subject_template": template})
