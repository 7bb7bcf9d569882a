"""Managed policies of the roles of GitHub jobs fit into IAM's limits, and too many environments are refused by name."""

from __future__ import annotations

import itertools
import json
import string
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.policy_sizes import LARGEST, MOST_POLICIES, managed_policies, policy_size, role_policies
from infra.scopes import Environment, Scope
from pipelines.declarations.environment import EnvironmentConfig
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import bootstrap_limits
from pipelines.targets.bootstrap_limits import ALWAYS_FIT, check_role_sizes
from tests.sample_project import ROOT, copy_as_forked

ACCOUNT, LONGEST_REGION = "111122223333", "ap-southeast-1"


def layout(number: int, project: str, width: int) -> AccountLayout:
    """Return a layout of environments with names of a width, each promoted from the one before."""
    letters = string.ascii_lowercase
    names = [letters[index // 26] + letters[index % 26] + "z" * (width - 2) for index in range(number)]
    environments = []
    for index, name in enumerate(names):
        config = EnvironmentConfig(
            promotes_from=names[index - 1] if index else None,
            trains=index == 0,
            disposable=True,
            owner="us",
            cost_centre="ours",
            cluster=f"{project}-{name}",
            namespace=name,
            permissions_boundary=f"bootstrap/{project}-{name}-boundary",
        )
        environments.append(Environment(name, project, config, ACCOUNT, LONGEST_REGION))
    return AccountLayout(
        Scope("account", project, environments[0].config, ACCOUNT, LONGEST_REGION), project, tuple(environments)
    )


def test_a_few_environments_always_fit_with_the_longest_names_that_s3_accepts() -> None:
    for project, width in (("p" * 18, 19), ("mlops", 32), ("p" * 32, 5)):
        assert max(role_policies(layout(ALWAYS_FIT, project, width)).values()) <= MOST_POLICIES


def test_too_many_environments_are_refused_with_role_and_number() -> None:
    with pytest.raises(MlopsError, match=r"role [a-z-]+ has too many managed policies: expected at most 10, .* found"):
        role_policies(layout(60, "p" * 18, 19))


def test_iam_does_not_count_white_space() -> None:
    assert policy_size([{"Effect": "Allow"}]) == len('{"Version":"2012-10-17","Statement":[{"Effect":"Allow"}]}')


def test_a_policy_that_is_too_large_is_split_and_means_the_same() -> None:
    small = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::b"]}
    resources = [f"arn:aws:s3:::{'b' * 40}-{number}/*" for number in range(300)]
    large = {"Effect": "Deny", "Action": ["s3:PutObject"], "Resource": resources, "Condition": {"Null": {"a": "true"}}}
    found = managed_policies("deploy-dev", {"one": [small], "two": [large, small]})
    assert list(found) == ["one", "two", "two-2", "two-3", "two-4"]
    assert all(policy_size(statements) <= LARGEST for statements in found.values())
    pieces = [statement for name in found if name != "one" for statement in found[name]]
    assert pieces.pop() == small
    assert [arn for piece in pieces for arn in piece["Resource"]] == resources
    assert all({**piece, "Resource": resources} == large for piece in pieces)


def test_both_sides_know_the_same_limit() -> None:
    assert bootstrap_limits.MOST_POLICIES == MOST_POLICIES


@pytest.mark.slow
def test_the_numbers_of_this_repository_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.bootstrap.policy_sizes"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    numbers = json.loads(done.stdout)
    assert {f"deploy-{name}" for name in Project(ROOT).environments} | {"preview"} == set(numbers)
    assert max(numbers.values()) <= MOST_POLICIES


@pytest.mark.slow
def test_validation_measures_the_roles_of_many_environments_only(tmp_path: Path) -> None:
    few = Project(copy_as_forked(tmp_path / "few", "infra", "pipelines"))
    assert check_role_sizes(few) == ""
    names = ["prod", *(f"{letter}{letter}" for letter in string.ascii_lowercase[: ALWAYS_FIT - 2])]
    for before, name in itertools.pairwise(names):
        text = few.stack_file("prod").read_text().replace("promotes_from: staging", f"promotes_from: {before}")
        few.stack_file(name).write_text(text.replace("mlops-prod-boundary", f"mlops-{name}-boundary"))
    assert "of at most 10 managed policies" in check_role_sizes(Project(few.root))
