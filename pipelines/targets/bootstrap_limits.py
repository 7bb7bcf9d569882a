"""Check that the bootstrap's roles fit into IAM's limits, before AWS refuses them."""

from __future__ import annotations

import json
import subprocess
import sys

from pipelines.declarations.environment_rules import ACCOUNT_FILE
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

ALWAYS_FIT = 12
"""Number of environments whose roles fit, whatever their names."""

MOST_POLICIES = 10
"""IAM's limit of the managed policies of a role."""

_MODULE = "infra.bootstrap.policy_sizes"
_WITHIN = 60.0  # seconds


def check_role_sizes(project: Project) -> str:
    """Return how many policies the largest role of the bootstrap has, in words; empty if the environments are few.

    Raises:
        MlopsError: a role has too many, or they cannot be computed.
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
            f"the roles of the bootstrap do not fit into IAM's limits: {lines[-1] if lines else 'no output'}",
            fix="use fewer environments in the account, or shorter names of the project and of environments",
        )
    numbers: dict[str, int] = json.loads(done.stdout)
    name, number = max(numbers.items(), key=lambda item: item[1])
    return f"the largest role of the bootstrap, {name}, has {number} of at most {MOST_POLICIES} managed policies"
