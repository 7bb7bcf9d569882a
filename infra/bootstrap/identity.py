"""Who may come from GitHub: for each environment a role that deploys it, and one role that looks at all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.bootstrap.configuration import AUDIENCE, ISSUER, PREVIEW, AccountConfig
from infra.bootstrap.estate import PATH, Estate
from infra.bootstrap.permissions import Statement, bounds, deploys, keeps_state, previews, reads_state
from infra.bootstrap.state import State
from infra.environment import Environment
from infra.policies.exemptions import exemptions

_SESSION_SECONDS = 2 * 60 * 60
"""The longest a deployment may take: a workflow's job is ended then, too."""

_MAKES_ROLES = {
    "iam-no-escalation": "a deployment makes keys, buckets and roles with their policies; only what bears the names or "
    "tags of its environment, and roles only under the environment's permissions boundary, which it cannot lift",
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
        exempt: rule → reason, for each rule of `infra/policies` that the role does not keep.
    """

    estate: Estate
    provider: pulumi.Input[str]
    subject: str
    description: str
    policies: Mapping[str, Sequence[Statement]]
    exempt: Mapping[str, str]


class Visitor(pulumi.ComponentResource):
    """A role for the jobs of one environment of one repository on GitHub.

    Attributes:
        arn: of the role.
    """

    def __init__(self, name: str, args: VisitorArgs, *, parent: pulumi.Resource) -> None:
        super().__init__(
            "mlops:bootstrap:Visitor", name, exemptions(args.exempt), pulumi.ResourceOptions(parent=parent)
        )
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
            aws.iam.RolePolicy(
                f"{name}-{about}",
                name=about,
                role=role.name,
                policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)}),
                opts=options,
            )
        self.arn: pulumi.Output[str] = role.arn
        self.register_outputs({"arn": role.arn, **(exemptions(args.exempt) or {})})


class GitHub(pulumi.ComponentResource):
    """GitHub's identity provider and the roles that trust it.

    Attributes:
        deploy: environment → ARN of the role that deploys it.
        preview: ARN of the role that looks at all of them.
        boundaries: environment → ARN of what bounds every role in it.
    """

    def __init__(self, name: str, estate: Estate, config: AccountConfig, state: State) -> None:
        super().__init__("mlops:bootstrap:GitHub", name)
        self._estate = estate
        provider = config.identity_provider or self._trusted_issuer(name)
        self.boundaries = {one.name: self._boundary(one) for one in estate.environments}
        self.deploy: dict[str, pulumi.Output[str]] = {}
        for environment in estate.environments:
            state_of = {"state": keeps_state(estate, environment, state.bucket.arn, state.key.arn)}
            deployer = VisitorArgs(
                estate,
                provider,
                config.subject(environment.name),
                f"Deploys {environment.prefix}: for the jobs of the environment {environment.name} on GitHub alone",
                {**deploys(estate, environment), **state_of},
                _MAKES_ROLES,
            )
            self.deploy[environment.name] = Visitor(f"deploy-{environment.name}", deployer, parent=self).arn
        viewer = VisitorArgs(
            estate,
            provider,
            config.subject(PREVIEW),
            "Looks at every environment and changes nothing: for previews and gates",
            {**previews(estate), "state": reads_state(estate, state.bucket.arn, state.key.arn)},
            {},
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

    def _boundary(self, environment: Environment) -> pulumi.Output[str]:
        policy = aws.iam.Policy(
            f"{environment.name}-boundary",
            name=self._estate.boundary_name(environment),
            path=PATH,
            description=f"The most that a role of {environment.prefix} can be given",
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": bounds(self._estate, environment)}),
            tags=self._estate.place.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )
        arn: pulumi.Output[str] = policy.arn
        return arn


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
