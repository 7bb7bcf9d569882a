"""Isolate the tests from the environment variables of the shell or workflow, and from the speed of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import boto3
import pytest
from hypothesis import settings

_REMOVED_PREFIXES = ("AWS_", "GH_", "GITHUB_", "GIT_", "KUBE", "MLOPS_", "PULUMI_", "RUNNER_")

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reports by default

# Settings of the person, or of the workflow's runner: they may lead git to another server, or sign commits.
_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

for _name in [name for name in os.environ if name.startswith(_REMOVED_PREFIXES)]:
    del os.environ[_name]
os.environ.update(_GIT)


settings.register_profile("project", deadline=None)  # on a busy machine, any example takes longer than 200 ms
settings.load_profile("project")


@pytest.fixture(autouse=True, scope="module")
def _own_environment() -> Iterator[None]:
    """Keep the account that a module's tests use from the tests of other modules; moto leaves its credentials."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    boto3.DEFAULT_SESSION = None
