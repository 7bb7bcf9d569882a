"""The tests see nothing of the environment they run in: a shell, a workflow on GitHub, or one on the laptop's."""

from __future__ import annotations

import os

_OF_OTHERS = ("AWS_", "GH_", "GITHUB_", "GIT_", "KUBE", "MLOPS_", "PULUMI_", "RUNNER_")

for _name in [name for name in os.environ if name.startswith(_OF_OTHERS)]:
    del os.environ[_name]
