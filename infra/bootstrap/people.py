"""The roles of people: one to land data files in an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.permissions import landing_statements
from infra.scopes import BOOTSTRAP_PATH, Environment


@dataclass(frozen=True, kw_only=True)
class LandingRoleArgs:
    """Arguments of `LandingRole`.

    Attributes:
        layout: the account's layout.
        environment: the environment that ingests the files.
        principals: ARNs of the IAM roles and users that may assume the role.
    """

    layout: AccountLayout
    environment: Environment
    principals: Sequence[str]


class LandingRole(pulumi.ComponentResource):
    """A role for people and programs that deliver data: it adds landing files, and can do nothing else.

    Attributes:
        arn: the role's ARN.
    """

    def __init__(self, name: str, args: LandingRoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:LandingRole", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name,
            name=f"{args.layout.project}-{name}",
            path=BOOTSTRAP_PATH,
            description=f"Adds files to the landing bucket of {args.environment.prefix}",
            assume_role_policy=pulumi.Output.json_dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Principal": {"AWS": list(args.principals)}, "Action": "sts:AssumeRole"}
                    ],
                }
            ),
            tags=args.layout.scope.tags(),
            opts=child,
        )
        aws.iam.RolePolicy(
            name,
            name="landing",
            role=role.name,
            policy=pulumi.Output.json_dumps(
                {"Version": "2012-10-17", "Statement": landing_statements(args.environment)}
            ),
            opts=child,
        )
        self.arn: pulumi.Output[str] = role.arn
        self.register_outputs({"arn": role.arn})
