"""Managed policies of the roles of GitHub jobs, within the limits of IAM.

`python -m infra.bootstrap.policy_sizes` prints role → number of managed policies as JSON; it needs no AWS account.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.permissions import (
    Statement,
    deploy_statements,
    preview_statements,
    read_state_statements,
    write_state_statements,
)
from infra.scopes import Environment, Scope
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.environment_rules import ACCOUNT_FILE
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

LARGEST = 6_144
"""Limit of a managed policy, in characters without white space (IAM user guide, "IAM and STS quotas")."""

MOST_POLICIES = 10
"""Limit of managed policies attached to a role, unless AWS raises the account's quota (same source)."""

_LONGEST_KEY_ARN = "x" * 92  # arn:aws-us-gov:kms:us-gov-east-1:<account>:key/<uuid>


def role_policies(layout: AccountLayout) -> dict[str, int]:
    """Return role → number of its managed policies.

    Raises:
        MlopsError: a role needs more than IAM accepts.
    """
    bucket = f"arn:aws:s3:::{layout.scope.bucket_name('state')}"
    roles: dict[str, Mapping[str, Sequence[Statement]]] = {
        f"deploy-{environment.name}": {
            **deploy_statements(layout, environment),
            "state": write_state_statements(layout, environment, bucket, _LONGEST_KEY_ARN),
        }
        for environment in layout.environments
    }
    roles["preview"] = {**preview_statements(layout), "state": read_state_statements(bucket, _LONGEST_KEY_ARN)}
    return {name: len(managed_policies(name, policies)) for name, policies in roles.items()}


def managed_policies(role: str, policies: Mapping[str, Sequence[Statement]]) -> dict[str, list[Statement]]:
    """Split policies that are larger than IAM accepts: `storage` becomes `storage` and `storage-2`.

    Args:
        role: name of the role.
        policies: name → statements.

    Raises:
        MlopsError: the role has more policies than IAM accepts.
    """
    found: dict[str, list[Statement]] = {}
    for name, statements in policies.items():
        parts: list[list[Statement]] = [[]]
        for statement in statements:
            for piece in _pieces(statement):
                if parts[-1] and policy_size([*parts[-1], piece]) > LARGEST:
                    parts.append([])
                parts[-1].append(piece)
        for number, part in enumerate(parts, start=1):
            found[name if number == 1 else f"{name}-{number}"] = part
    if len(found) > MOST_POLICIES:
        raise MlopsError(
            f"the role {role} has too many managed policies: expected at most {MOST_POLICIES}, which is IAM's limit, "
            f"found {len(found)}",
            fix="use fewer environments in the account, or shorter names of the project and of environments",
        )
    return found


def _pieces(statement: Statement) -> list[Statement]:
    """Divide the resources of a statement until each piece fits into a policy. Together they mean the same."""
    resources = statement.get("Resource")
    if policy_size([statement]) <= LARGEST or not isinstance(resources, list) or len(resources) < 2:
        return [statement]
    middle = len(resources) // 2
    return [
        piece for half in (resources[:middle], resources[middle:]) for piece in _pieces({**statement, "Resource": half})
    ]


def policy_size(statements: Sequence[Statement]) -> int:
    """Return the size of a policy, in characters without white space. An ARN that is not known yet counts as long."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return len(json.dumps(document, separators=(",", ":"), default=lambda _: _LONGEST_KEY_ARN))


def declared_layout(project: Project) -> AccountLayout:
    """Return the layout that a project declares, for an account with any id.

    Raises:
        MlopsError: the declarations are not valid.
    """
    file = project.root / ACCOUNT_FILE
    region = str(parse_yaml(read_bytes(file), file)[0]["config"]["aws:region"])
    stacks = {name: project.stack(name).config for name in project.environments}
    account = "0" * 12
    environments = tuple(
        Environment(name, project.name, stack.environment, account, stack.region) for name, stack in stacks.items()
    )
    return AccountLayout(
        Scope("account", project.name, environments[0].config, account, region), project.name, environments
    )


if __name__ == "__main__":
    try:
        json.dump(role_policies(declared_layout(Project.find(Path.cwd()))), sys.stdout)
    except MlopsError as error:
        sys.exit(str(error))
