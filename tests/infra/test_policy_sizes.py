"""The inline policies of the bootstrap's roles fit into IAM's limit, and too many environments are refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.policy_sizes import LARGEST, check_sizes, inline_size, role_sizes
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
    names = [chr(ord("a") + index) + "z" * (width - 1) for index in range(number)]
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
        check_sizes(role_sizes(layout(ALWAYS_FIT, project, width)))


def test_too_many_environments_are_refused_with_role_and_size() -> None:
    with pytest.raises(MlopsError, match=r"role [a-z-]+ are too large: expected at most 10,240 .*, found 1\d,\d{3}"):
        check_sizes(role_sizes(layout(16, "mlops", 7)))


def test_iam_does_not_count_white_space() -> None:
    assert inline_size([[{"Effect": "Allow"}]]) == len('{"Version":"2012-10-17","Statement":[{"Effect":"Allow"}]}')


def test_both_sides_know_the_same_limit() -> None:
    assert bootstrap_limits.LARGEST == LARGEST


@pytest.mark.slow
def test_the_sizes_of_this_repository_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.bootstrap.policy_sizes"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sizes = json.loads(done.stdout)
    assert {f"deploy-{name}" for name in Project(ROOT).environments} | {"preview"} == set(sizes)
    assert max(sizes.values()) <= LARGEST


@pytest.mark.slow
def test_validation_measures_the_roles_of_many_environments_only(tmp_path: Path) -> None:
    few = Project(copy_as_forked(tmp_path / "few", "infra", "pipelines"))
    assert check_role_sizes(few) == ""
    for before, name in (("prod", "europe"), ("europe", "asia")):
        text = few.stack_file("prod").read_text().replace("promotes_from: staging", f"promotes_from: {before}")
        few.stack_file(name).write_text(text.replace("mlops-prod-boundary", f"mlops-{name}-boundary"))
    assert "of IAM's 10,240 characters" in check_role_sizes(Project(few.root))
