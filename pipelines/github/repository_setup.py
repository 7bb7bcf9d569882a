"""Set up this repository on GitHub: gather what differs between repositories, plan, and apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.repository_root import PROGRAM
from pipelines.github.gh import Gh, GitHubError
from pipelines.github.issues import ALARM_LABEL
from pipelines.github.repository_facts import (
    APP_SLUG,
    RepositoryFacts,
    Unreadable,
    form_labels,
    read_repository,
    read_teams,
)
from pipelines.github.repository_files import declared_subject, planned_files
from pipelines.github.settings import IMAGES, PREVIEW, REPOSITORY, Setting, WantedSettings, judge_settings
from pipelines.github.setup_plan import Change, SetupPlan, apply_setup, plan_setup


@dataclass(frozen=True)
class SetupOptions:
    """What a person says about the repository.

    Attributes:
        app: slug of the GitHub App; "" for the one that the variable `APP_SLUG` names.
        variables: `repository` or a GitHub environment → name → value: the bootstrap's output.
        backend: URL of the Pulumi state: the bootstrap's output; None to leave Pulumi.yaml as it is.
        owners: team of the template's CODEOWNERS → `@login` or `@organisation/team`.
        reviewers: environment → logins and `organisation/team` that must approve its deployments.
        key: the app's private key; "" to leave the secrets alone.
    """

    app: str = ""
    variables: Mapping[str, Mapping[str, str]] | None = None
    backend: str | None = None
    owners: Mapping[str, str] | None = None
    reviewers: Mapping[str, Sequence[str]] | None = None
    key: str = ""


@dataclass(frozen=True)
class PreparedSetup:
    """A plan, and what it is made of.

    Attributes:
        plan: what changes on GitHub, and what a person must do.
        files: files of the clone → their new content.
        absent_teams: teams that CODEOWNERS will name and the organisation does not have.
        wanted: the settings as they must be.
    """

    plan: SetupPlan
    files: Mapping[Path, str]
    absent_teams: tuple[str, ...]
    wanted: WantedSettings

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to change."""
        return not self.plan.changes and not self.files


def read_wanted(root: Path, environments: Sequence[str]) -> WantedSettings:
    """Return the settings as they must be, as far as the clone says.

    Raises:
        MlopsError: a file of the clone is not valid.
    """
    backend = Project(root).backend if (root / PROGRAM).is_file() else None
    labels = form_labels(root) | {ALARM_LABEL}
    return WantedSettings(tuple(environments), labels, declared_subject(root), backend)


def judge_repository(gh: Gh, environments: Sequence[str]) -> list[Setting]:
    """Read the settings of the repository, and judge them.

    Raises:
        MlopsError: the repository cannot be read.
    """
    wanted = read_wanted(gh.root, environments)
    return judge_settings(read_repository(gh, wanted.github_environments), wanted)


def prepare_setup(gh: Gh, environments: Sequence[str], options: SetupOptions) -> PreparedSetup:
    """Read the repository, and plan what to change. Changes nothing.

    Args:
        gh: the repository.
        environments: the environments of the project.
        options: what the person says.

    Raises:
        MlopsError: the caller is not an administrator, an option names something that does not exist, or the
            repository cannot be read.
    """
    wanted = read_wanted(gh.root, environments)
    _check_names(wanted, options)
    facts = read_repository(gh, wanted.github_environments, options.app or None)
    teams = read_teams(gh, facts.owner) if facts.is_organisation else None
    wanted = replace(
        wanted,
        variables=_variables(facts, wanted, options),
        reviewers={
            name: tuple(_reviewer(gh, each, teams or {}) for each in people)
            for name, people in (options.reviewers or {}).items()
        },
    )
    plan = plan_setup(facts, wanted, has_key=bool(options.key))
    slugs = None if teams is None else tuple(teams)
    files, absent = planned_files(gh.root, facts, slugs, options.owners or {}, options.backend)
    return PreparedSetup(plan, files, absent, wanted)


def apply_prepared(
    gh: Gh, prepared: PreparedSetup, options: SetupOptions
) -> Iterator[tuple[Change, GitHubError | None]]:
    """Write the files, send the requests, and yield each change with the error that ended it, if any."""
    for path, text in prepared.files.items():
        write_atomically(path, text)
    yield from apply_setup(gh, prepared.plan.changes, key=options.key)


def _check_names(wanted: WantedSettings, options: SetupOptions) -> None:
    known = {REPOSITORY, *wanted.github_environments}
    for group in options.variables or {}:
        if group not in known:
            raise MlopsError(
                f"outputs of the bootstrap: {group}: expected one of {', '.join(sorted(known))}",
                fix="run the bootstrap of this repository again",
            )
    for name in options.reviewers or {}:
        if name not in wanted.environments:
            raise MlopsError(f"--reviewer: expected one of {', '.join(wanted.environments)}, found {name!r}")


def _variables(facts: RepositoryFacts, wanted: WantedSettings, options: SetupOptions) -> dict[str, dict[str, str]]:
    """Return the variables whose values are known: the bootstrap's, and those of the app."""
    known: dict[str, dict[str, str]] = {group: dict(values) for group, values in (options.variables or {}).items()}
    if isinstance(facts.app, Unreadable):
        if options.app:
            raise MlopsError(
                f"the GitHub App {options.app}: {facts.app.why}",
                fix="pass the last part of https://github.com/apps/<slug>, and sign in as its owner",
            )
    elif facts.app is not None:
        known.setdefault(REPOSITORY, {})
        known[REPOSITORY] |= {"APP_CLIENT_ID": str(facts.app["client_id"]), APP_SLUG: str(facts.app["slug"])}
    order = (REPOSITORY, PREVIEW, IMAGES, *wanted.environments)
    return {group: known[group] for group in order if group in known}


def _reviewer(gh: Gh, name: str, teams: Mapping[str, int]) -> tuple[str, int, str]:
    """Return kind, id and name of a person or a team.

    Raises:
        MlopsError: there is no such person or team.
    """
    name = name.removeprefix("@")
    _, is_team, slug = name.partition("/")
    if is_team:
        if slug not in teams:
            raise MlopsError(f"--reviewer: the team {name} does not exist", fix="create it, or name another one")
        return "Team", teams[slug], slug
    found: Any = gh.request("GET", f"users/{quote(name, safe='')}")
    return "User", int(found["id"]), str(found["login"])
