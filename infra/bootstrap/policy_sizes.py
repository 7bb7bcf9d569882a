"""Sizes of the inline policies of the roles of GitHub jobs, against the limit of IAM.

`python -m infra.bootstrap.policy_sizes` prints role → size as JSON; it needs no AWS account.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from infra.bootstrap.layout import AccountLayout
from infra.bootstrap.permissions import (
    Statement,
    access_statements,
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

LARGEST = 10_240
"""Limit of all inline policies of a role, in characters without white space (IAM user guide, "IAM and STS quotas")."""


def role_sizes(layout: AccountLayout) -> dict[str, int]:
    """Return role → size of its inline policies, in characters as IAM counts them."""
    # ARNs as long as those that AWS will give to the state bucket and its key.
    bucket, key = f"arn:aws:s3:::{layout.scope.bucket_name('state')}", layout.scope.arn("kms", f"key/{'0' * 36}")
    roles: dict[str, Mapping[str, Sequence[Statement]]] = {
        f"deploy-{environment.name}": {
            **deploy_statements(layout, environment),
            "access": access_statements(environment),
            "state": write_state_statements(layout, environment, bucket, key),
        }
        for environment in layout.environments
    }
    roles["preview"] = {**preview_statements(layout), "state": read_state_statements(bucket, key)}
    return {name: inline_size(policies.values()) for name, policies in roles.items()}


def inline_size(policies: Iterable[Sequence[Statement]]) -> int:
    """Return the size of inline policies, in characters without white space."""
    documents = ({"Version": "2012-10-17", "Statement": list(statements)} for statements in policies)
    return sum(len(json.dumps(document, separators=(",", ":"))) for document in documents)


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Refuse roles whose inline policies are larger than IAM accepts.

    Raises:
        MlopsError: a role has too many characters.
    """
    name, size = max(sizes.items(), key=lambda item: item[1])
    if size > LARGEST:
        raise MlopsError(
            f"the inline policies of the role {name} are too large: expected at most {LARGEST:,} characters, which is "
            f"IAM's limit, found {size:,}",
            fix="use fewer environments in the account, or shorter names of the project and of environments",
        )


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
    json.dump(role_sizes(declared_layout(Project.find(Path.cwd()))), sys.stdout)
