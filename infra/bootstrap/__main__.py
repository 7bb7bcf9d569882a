"""Bootstrap an AWS account: the state bucket, the image repositories, and the roles of jobs and people."""

from __future__ import annotations

from pathlib import Path

import pulumi

from infra.bootstrap.configuration import IMAGES, PREVIEW, load_account
from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.people import LandingRole, LandingRoleArgs
from infra.bootstrap.repositories import ImageRepositories, ImageRepositoriesArgs
from infra.bootstrap.roles import GitHubAccess, GitHubAccessArgs
from infra.bootstrap.state import StateStorage, StateStorageArgs
from infra.command_line import require_policy_pack
from infra.mistakes import reported
from infra.scopes import Environment, Scope, find_account
from pipelines.declarations.project import Project


def provision() -> None:
    """Register the resources and the outputs of the account."""
    project = Project(Path(__file__).resolve().parents[2])
    require_policy_pack(project.root)
    config = load_account()
    account, region, partition = find_account()

    scope = Scope("account", project.name, config, account, region, partition)
    stacks = {name: project.stack(name).config for name in project.environments}
    environments = tuple(
        Environment(name, project.name, stack.environment, account, stack.region, partition)
        for name, stack in stacks.items()
    )
    layout = AccountLayout(scope, project.name, environments)

    state = StateStorage("state", StateStorageArgs(scope=scope, config=config))
    repositories = ImageRepositories("images", ImageRepositoriesArgs(scope=scope, pull_accounts=config.pull_accounts))
    github = GitHubAccess(
        "github", GitHubAccessArgs(layout=layout, config=config, state=state, repositories=repositories)
    )
    land = {
        environment.name: LandingRole(
            f"land-{environment.name}",
            LandingRoleArgs(layout=layout, environment=environment, principals=principals),
        ).arn
        for environment, principals in layout.landing(config.landing_principals).items()
    }

    backend = f"s3://{state.bucket.name}?region={region}"
    pulumi.export("state_bucket", state.bucket.name)
    pulumi.export("backend_url", backend)  # `mlops github setup` writes it into Pulumi.yaml
    pulumi.export("deploy_roles", github.deploy)
    pulumi.export("preview_role", github.preview)
    pulumi.export("images_role", github.images)
    pulumi.export("land_roles", land)
    # GitHub environment (or `repository`) → variables to set there: docs/bootstrap.md
    pulumi.export(
        "variables",
        {
            "repository": {"AWS_REGION": region, "MLOPS_TARGET": "aws"},
            PREVIEW: {"AWS_PREVIEW_ROLE": github.preview},
            IMAGES: {"AWS_IMAGES_ROLE": github.images},
            **{name: {"AWS_DEPLOY_ROLE": arn} for name, arn in github.deploy.items()},
        },
    )


with reported():
    provision()
