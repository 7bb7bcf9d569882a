"""The roles of GitHub Actions jobs: one to deploy each environment, one for previews and one to push images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.bootstrap.configuration import AUDIENCE, IMAGES, PREVIEW, AccountConfig
from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.permissions import (
    Statement,
    access_statements,
    boundary_statements,
    deploy_statements,
    preview_statements,
    push_statements,
    read_state_statements,
    write_state_statements,
)
from infra.bootstrap.policy_sizes import managed_policies
from infra.bootstrap.repositories import ImageRepositories
from infra.bootstrap.state import StateStorage
from infra.policies.exemptions import exemptions
from infra.scopes import BOOTSTRAP_PATH, MAY_CHANGE_PROTECTION, Environment

_SESSION_SECONDS = 2 * 60 * 60
"""Maximum duration of a session; also the timeout of the deploy job."""

_ACCESS_EXEMPTION = {
    "iam-no-escalation": "a deployment sets the policies of its own new buckets, which seal themselves; the role is "
    "denied all data, whatever a bucket policy allows",
}


@dataclass(frozen=True, kw_only=True)
class GitHubRoleArgs:
    """Arguments of `GitHubRole`.

    Attributes:
        layout: the account's layout.
        provider: ARN of the identity provider.
        issuer: issuer of its tokens, without `https://`.
        subject: the one token subject that may assume the role.
        description: what the role is for.
        policies: name → statements of managed policies. One that is too large for IAM is split.
        access_statements: statements that change access policies; kept in an inline policy exempt from
            `iam-no-escalation`.
        may_change_protection: whether the role may change the protection of existing buckets.
    """

    layout: AccountLayout
    provider: pulumi.Input[str]
    issuer: str
    subject: str
    description: str
    policies: Mapping[str, Sequence[Statement]]
    access_statements: Sequence[Statement] = ()
    may_change_protection: bool = False


class GitHubRole(pulumi.ComponentResource):
    """A role for the jobs of one GitHub environment of one repository.

    Attributes:
        arn: the role's ARN.
    """

    def __init__(self, name: str, args: GitHubRoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:GitHubRole", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        opened = dict([MAY_CHANGE_PROTECTION]) if args.may_change_protection else {}
        role_name = f"{args.layout.project}-{name}"
        role = aws.iam.Role(
            name,
            name=role_name,
            path=BOOTSTRAP_PATH,
            description=args.description,
            assume_role_policy=pulumi.Output.json_dumps(_trust_policy(args.provider, args.issuer, args.subject)),
            max_session_duration=_SESSION_SECONDS,
            tags={**args.layout.scope.tags(), **opened},
            opts=child,
        )
        for policy, statements in managed_policies(role_name, args.policies).items():
            managed = aws.iam.Policy(
                f"{name}-{policy}",
                name=f"{role_name}-{policy}",
                path=BOOTSTRAP_PATH,
                description=f"Permissions of the role {role_name}: {policy}",
                policy=_document(statements),
                tags=args.layout.scope.tags(),
                opts=child,
            )
            aws.iam.RolePolicyAttachment(f"{name}-{policy}", role=role.name, policy_arn=managed.arn, opts=child)
        if args.access_statements:
            AccessPolicy(name, AccessPolicyArgs(role=role, statements=args.access_statements), child)
        self.arn: pulumi.Output[str] = role.arn
        self.register_outputs({"arn": role.arn})


@dataclass(frozen=True, kw_only=True)
class AccessPolicyArgs:
    """Arguments of `AccessPolicy`.

    Attributes:
        role: the role that the policy belongs to.
        statements: the policy's statements.
    """

    role: aws.iam.Role
    statements: Sequence[Statement]


class AccessPolicy(pulumi.ComponentResource):
    """An inline policy that sets access policies; separate, so that no other policy shares its exemption."""

    def __init__(self, name: str, args: AccessPolicyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:AccessPolicy", name, None, opts)
        aws.iam.RolePolicy(
            f"{name}-access",
            name="access",
            role=args.role.name,
            policy=_document(args.statements),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs(exemptions(_ACCESS_EXEMPTION))


def _document(statements: Sequence[Statement]) -> pulumi.Output[str]:
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass(frozen=True, kw_only=True)
class GitHubAccessArgs:
    """Arguments of `GitHubAccess`.

    Attributes:
        layout: the account's layout.
        config: the account's configuration.
        state: the storage of the Pulumi state.
        repositories: the image repositories.
    """

    layout: AccountLayout
    config: AccountConfig
    state: StateStorage
    repositories: ImageRepositories


class GitHubAccess(pulumi.ComponentResource):
    """GitHub's identity provider, the roles that trust it, and the permissions boundary of each environment.

    Attributes:
        deploy: environment → ARN of the role that deploys it.
        preview: ARN of the role that reads every environment.
        images: ARN of the role that pushes images.
    """

    def __init__(self, name: str, args: GitHubAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:GitHubAccess", name, None, opts)
        self._args, self._child = args, pulumi.ResourceOptions(parent=self)
        layout, bucket_arn, key_arn = args.layout, args.state.bucket.arn, args.state.key.arn
        self._issuer = args.config.identity_provider or self._identity_provider(name)
        for environment in layout.environments:
            self._boundary(environment)
        self.deploy: dict[str, pulumi.Output[str]] = {}
        opened = layout.opened(args.config.open_environments)
        for environment in layout.environments:
            self.deploy[environment.name] = self._role(
                f"deploy-{environment.name}",
                environment.name,
                f"Deploys {environment.prefix} from jobs of the GitHub environment {environment.name}",
                {
                    **deploy_statements(layout, environment),
                    "state": write_state_statements(layout, environment, bucket_arn, key_arn),
                },
                access_statements(environment),
                environment.name in opened,
            )
        self.preview = self._role(
            PREVIEW,
            PREVIEW,
            "Reads every environment and changes nothing, for previews and gates",
            {**preview_statements(layout), "state": read_state_statements(bucket_arn, key_arn)},
        )
        self.images = self._role(IMAGES, IMAGES, "Pushes images", {"images": push_statements(args.repositories.arns)})
        self.register_outputs({"deploy": self.deploy, "preview": self.preview, "images": self.images})

    def _role(
        self,
        name: str,
        github_environment: str,
        description: str,
        policies: Mapping[str, Sequence[Statement]],
        access: Sequence[Statement] = (),
        may_change_protection: bool = False,
    ) -> pulumi.Output[str]:
        args = GitHubRoleArgs(
            layout=self._args.layout,
            provider=self._issuer,
            issuer=self._args.config.issuer,
            subject=self._args.config.subject(github_environment),
            description=description,
            policies=policies,
            access_statements=access,
            may_change_protection=may_change_protection,
        )
        return GitHubRole(name, args, self._child).arn

    def _identity_provider(self, name: str) -> pulumi.Output[str]:
        provider = aws.iam.OpenIdConnectProvider(
            name,
            url=f"https://{self._args.config.issuer}",
            client_id_lists=[AUDIENCE],
            tags=self._args.layout.scope.tags(),
            opts=self._child,
        )
        arn: pulumi.Output[str] = provider.arn
        return arn

    def _boundary(self, environment: Environment) -> None:
        layout = self._args.layout
        aws.iam.Policy(
            f"{environment.name}-boundary",
            name=layout.boundary_name(environment),
            path=BOOTSTRAP_PATH,
            description=f"Permissions boundary of the roles of {environment.prefix}",
            policy=_document(boundary_statements(environment)),
            tags=layout.scope.tags(),
            opts=self._child,
        )


def _trust_policy(provider: pulumi.Input[str], issuer: str, subject: str) -> dict[str, Any]:
    """Trust one subject of one identity provider, and only tokens issued for AWS.

    Source: GitHub, "Configuring OpenID Connect in Amazon Web Services".
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": provider},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {"StringEquals": {f"{issuer}:aud": AUDIENCE, f"{issuer}:sub": subject}},
            }
        ],
    }
