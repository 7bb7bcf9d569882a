"""Who must approve what the last environments run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.release_owners import (
    check_release_owners,
    final_environments,
    find_unowned,
    with_release_owners,
    write_release_owners,
)
from tests.sample_project import ROOT, copy_as_forked

OWNERS = """\
# comment
*                               @acme/ml-platform
/models/                        @acme/data-science
/models/*/releases/prod.yaml    @acme/approvers # who is careful
/Pulumi.prod.yaml               @acme/approvers
/docs/                          @acme/writers
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = copy_as_forked(tmp_path)
    (root / ".github").mkdir()
    (root / ".github" / "CODEOWNERS").write_text(OWNERS, encoding="utf-8")
    return Project(root)


def add_environment(project: Project, name: str, after: str) -> Project:
    text = (
        project.stack_file("prod")
        .read_text(encoding="utf-8")
        .replace("promotes_from: staging", f"promotes_from: {after}")
    )
    (project.root / f"Pulumi.{name}.yaml").write_text(text, encoding="utf-8")
    return Project(project.root)


def test_the_last_environments_are_those_from_which_none_promotes(project: Project) -> None:
    assert final_environments(project) == ("prod",)
    assert set(final_environments(add_environment(project, "prod-us", "staging"))) == {"prod", "prod-us"}
    assert set(final_environments(add_environment(project, "prod-eu", "prod-us"))) == {"prod", "prod-eu"}


def test_codeowners_of_this_repository_name_who_approves_the_last_environments() -> None:
    check_release_owners(Project(ROOT))


def test_an_environment_without_owners_of_its_own_is_refused_until_they_are_written(project: Project) -> None:
    check_release_owners(project)
    assert not write_release_owners(project)
    more = add_environment(project, "prod-us", "staging")
    with pytest.raises(MlopsError) as caught:
        check_release_owners(more)
    problems = str(caught.value)
    assert problems.count("fix: mlops github owners") == 2
    for pattern in ("/models/*/releases/prod-us.yaml", "/Pulumi.prod-us.yaml"):
        assert f".github/CODEOWNERS: expected a line `{pattern}` with owners, found none" in problems
    assert write_release_owners(more)
    text = (more.root / ".github" / "CODEOWNERS").read_text(encoding="utf-8")
    assert text == OWNERS + (
        "/models/*/releases/prod-us.yaml @acme/approvers\n/Pulumi.prod-us.yaml            @acme/approvers\n"
    )
    check_release_owners(more)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("/models/m/ @x", 7),
        ("models/ @x", 7),
        ("* @x", 7),
        ("*.yaml @x", 7),
        ("**/releases/ @x", 7),
        ("/Pulumi.* @x", 7),
        ("prod.yaml @x", 7),
        ("releases/ @x", 7),
        ("releases @x", 7),
        ("/*/m/ @x", 7),
        ("/mode?s/ @x", 7),
        ("/**/prod.yaml @x", 7),
        ("/models/*/releases/pro?.yaml @x", 7),
        ("/Pulumi.pro?.yaml @x", 7),
        ("?ulumi.prod.yaml", 7),
    ],
)
def test_a_general_line_after_that_of_a_release_is_refused(line: str, number: int) -> None:
    problems = [*find_unowned(f"{OWNERS}{line}\n", ("prod",))]
    assert problems
    assert {(problem.line, problem.found) for problem in problems} == {(number, f"`{line.split()[0]}`")}


@pytest.mark.parametrize(
    "line", ["/models/*/model.yaml @x", "/docs/prod.yaml @x", "/models/*/releases/dev.yaml @x", "staging.yaml @x"]
)
def test_a_line_that_fits_no_such_release_may_follow(line: str) -> None:
    assert [*find_unowned(f"{OWNERS}{line}\n", ("prod",))] == []


def test_a_line_without_owners_is_refused() -> None:
    (problem,) = find_unowned(
        OWNERS.replace("/Pulumi.prod.yaml               @acme/approvers", "/Pulumi.prod.yaml"), ("prod",)
    )
    assert (problem.line, problem.expected) == (5, "a line `/Pulumi.prod.yaml` with owners")


def test_owners_are_taken_from_the_line_of_everything_if_no_environment_has_any() -> None:
    assert with_release_owners("* @a @b\n", ("prod",)).splitlines()[1:] == [
        "/models/*/releases/prod.yaml    @a @b",
        "/Pulumi.prod.yaml               @a @b",
    ]
    with pytest.raises(MlopsError, match="expected a line `\\*` or of an environment"):
        with_release_owners("/docs/ @a\n", ("prod",))


def test_a_repository_without_the_file_is_not_checked(tmp_path: Path) -> None:
    project = Project(copy_as_forked(tmp_path))
    check_release_owners(project)
    assert not write_release_owners(project)
