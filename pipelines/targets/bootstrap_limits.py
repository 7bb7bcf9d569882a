"""Check that the bootstrap's roles fit into IAM's limits, before AWS refuses them."""

from __future__ import annotations

import json
import subprocess
import sys

from pipelines.declarations.environment_rules import ACCOUNT_FILE
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

ALWAYS_FIT = 4
"""Number of environments whose roles fit, whatever their names."""

LARGEST = 10_240
"""IAM's limit of the inline policies of a role, in characters."""

_MODULE = "infra.bootstrap.policy_sizes"
_WITHIN = 60.0  # seconds


def check_role_sizes(project: Project) -> str:
    """Return the size of the largest role of the bootstrap in words; empty if the environments are few.

    Raises:
        MlopsError: a role is too large, or the sizes cannot be computed.
    """
    if len(project.environments) <= ALWAYS_FIT or not (project.root / ACCOUNT_FILE).is_file():
        return ""
    done = subprocess.run(
        [sys.executable, "-m", _MODULE],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise MlopsError(
            f"the roles of the bootstrap cannot be measured: {lines[-1] if lines else 'no output'}", fix="make setup"
        )
    sizes: dict[str, int] = json.loads(done.stdout)
    name, size = max(sizes.items(), key=lambda item: item[1])
    if size > LARGEST:
        raise MlopsError(
            f"{len(sizes) - 1} environments are too many for one account: the role {name} of the bootstrap would have "
            f"inline policies of {size:,} characters; expected at most {LARGEST:,}, which is IAM's limit",
            fix="use fewer environments in the account, or shorter names of the project and of environments",
        )
    return f"the largest role of the bootstrap, {name}, uses {size:,} of IAM's {LARGEST:,} characters"
