"""Who may come from GitHub: for each environment a role that deploys it, and one role that looks at all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.bootstrap.configuration import AUDIENCE, ISSUER, PREVIEW, AccountConfig
from infra.bootstrap.estate import PATH, Estate
from infra.bootstrap.permissions import Statement, bounds, deploys, keeps_state, opens, previews, reads_state
from infra.bootstrap.state import State
from infra.environment import Environment
from infra.policies.exemptions import exemptions

_SESSION_SECONDS = 2 * 60 * 60
"""The longest a deployment may take: a workflow's job is ended then, too."""

_OPENS = {
    "iam-no-escalation": "a deployment says who may use the buckets and the roles that it makes: only those that bear "
    "the names of its environment, and those roles carry a permissions boundary that it cannot lift",
}


@dataclass(frozen=True)
class VisitorArgs:
    """Who comes, and what for.

    Attributes:
        estate: where to.
        provider: ARN of the identity provider.
        subject: the one subject that is let in.
        description: what for.
        policies: name → statements.
        opens: the statements by which it says who may use what it makes.
    """

    estate: Estate
    provider: pulumi.Input[str]
    subject: str
    description: str
    policies: Mapping[str, Sequence[Statement]]
    opens: Sequence[Statement] = ()


class Visitor(pulumi.ComponentResource):
    """A role for the jobs of one environment of one repository on GitHub.

    Attributes:
        arn: of the role.
    """

    def __init__(self, name: str, args: VisitorArgs, *, parent: pulumi.Resource) -> None:
        super().__init__("mlops:bootstrap:Visitor", name, None, pulumi.ResourceOptions(parent=parent))
        options = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name,
            name=f"{args.estate.main}-{name}",
            path=PATH,
            description=args.description,
            assume_role_policy=pulumi.Output.json_dumps(_trust(args.provider, args.subject)),
            max_session_duration=_SESSION_SECONDS,
            tags=args.estate.place.tags(),
            opts=options,
        )
        for about, statements in args.policies.items():
            _policy(name, about, role, statements, self)
        if args.opens:
            Opening(name, role, args.opens, parent=self)
        self.arn: pulumi.Output[str] = role.arn
        self.register_outputs({"arn": role.arn})


class Opening(pulumi.ComponentResource):
    """The one policy of a role by which it changes who may use what: apart, so that only it is exempt from a rule."""

    def __init__(
        self, name: str, role: aws.iam.Role, statements: Sequence[Statement], *, parent: pulumi.Resource
    ) -> None:
        super().__init__("mlops:bootstrap:Opening", name, exemptions(_OPENS), pulumi.ResourceOptions(parent=parent))
        _policy(name, "opening", role, statements, self)
        self.register_outputs({})


def _policy(
    name: str, about: str, role: aws.iam.Role, statements: Sequence[Statement], parent: pulumi.Resource
) -> None:
    aws.iam.RolePolicy(
        f"{name}-{about}",
        name=about,
        role=role.name,
        policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)}),
        opts=pulumi.ResourceOptions(parent=parent),
    )


class GitHub(pulumi.ComponentResource):
    """GitHub's identity provider and the roles that trust it.

    Attributes:
        deploy: environment → ARN of the role that deploys it.
        preview: ARN of the role that looks at all of them.
    """

    def __init__(self, name: str, estate: Estate, config: AccountConfig, state: State) -> None:
        super().__init__("mlops:bootstrap:GitHub", name)
        self._estate = estate
        provider = config.identity_provider or self._trusted_issuer(name)
        for environment in estate.environments:
            self._boundary(environment)
        self.deploy: dict[str, pulumi.Output[str]] = {}
        for environment in estate.environments:
            state_of = {"state": keeps_state(estate, environment, state.bucket.arn, state.key.arn)}
            deployer = VisitorArgs(
                estate,
                provider,
                config.subject(environment.name),
                f"Deploys {environment.prefix}: for the jobs of the environment {environment.name} on GitHub alone",
                {**deploys(estate, environment), **state_of},
                opens(environment),
            )
            self.deploy[environment.name] = Visitor(f"deploy-{environment.name}", deployer, parent=self).arn
        viewer = VisitorArgs(
            estate,
            provider,
            config.subject(PREVIEW),
            "Looks at every environment and changes nothing: for previews and gates",
            {**previews(estate), "state": reads_state(state.bucket.arn, state.key.arn)},
        )
        self.preview = Visitor(PREVIEW, viewer, parent=self).arn
        self.register_outputs({"deploy": self.deploy, "preview": self.preview})

    def _trusted_issuer(self, name: str) -> pulumi.Output[str]:
        provider = aws.iam.OpenIdConnectProvider(
            name,
            url=f"https://{ISSUER}",
            client_id_lists=[AUDIENCE],
            tags=self._estate.place.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )
        arn: pulumi.Output[str] = provider.arn
        return arn

    def _boundary(self, environment: Environment) -> None:
        aws.iam.Policy(
            f"{environment.name}-boundary",
            name=self._estate.boundary_name(environment),
            path=PATH,
            description=f"The most that a role of {environment.prefix} can be given",
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": bounds(environment)}),
            tags=self._estate.place.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _trust(provider: pulumi.Input[str], subject: str) -> dict[str, Any]:
    """One subject of one provider, for AWS and nobody else.

    Source: GitHub, "Configuring OpenID Connect in Amazon Web Services".
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": provider},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": subject}},
            }
        ],
    }
