"""The laptop bootstraps its account once, and never in a workflow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from laptop import lifecycle, stack_operations
from laptop.aws.account import start
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.cloud import Cloud
from laptop.engine.display import Silence
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests, publish_locally
from pipelines.declarations.project import Project
from pipelines.promotion.images import content_key, key_tag
from tests.infra.recording import AUTHORITY, write_kubeconfig
from tests.sample_project import PROJECT, copy_as_forked

pytestmark = pytest.mark.slow


class Notices(Silence):
    """A display that keeps its notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def noticed(self, text: str) -> None:
        self.notices.append(text)


def test_the_account_is_bootstrapped_once_for_the_named_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    account = start(tmp_path / "aws")
    try:
        provider = AwsProvider(account.environ(), account.home)
        running = SimpleNamespace(home=tmp_path, incarnation="it", providers=lambda: {"aws": provider})
        write_kubeconfig(tmp_path / "kubeconfig", AUTHORITY)
        monkeypatch.setattr(lifecycle, "find", lambda home: running)
        monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

        first, again = Notices(), Notices()
        stack_operations.prepare_account(root, tmp_path, first)
        stack_operations.prepare_account(root, tmp_path, again)
        assert [len(notices.notices) for notices in (first, again)] == [1, 0]

        roles = stack_operations.bootstrap(root, tmp_path, "initech/models")
        iam: Any = Cloud(account.environ(), account.home).client("iam")
        for name, arn in {**roles.deploy, "preview": roles.preview, "images": roles.images}.items():
            trust = iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
            claims = trust["Statement"][0]["Condition"]["StringEquals"]
            assert claims["token.actions.githubusercontent.com:sub"] == f"repo:initech/models:environment:{name}"
    finally:
        account.stop()


def test_publishing_bootstraps_the_account_and_pushes_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_as_forked(tmp_path / "project", "infra/bootstrap", "pipelines", "requirements", ".dockerignore")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    account = start(tmp_path / "aws")
    try:
        provider = AwsProvider(account.environ(), account.home)
        running = SimpleNamespace(
            home=tmp_path,
            incarnation="it",
            providers=lambda: {"aws": provider},
            environ_of_caller=lambda _: account.environ(),
        )
        write_kubeconfig(tmp_path / "kubeconfig", AUTHORITY)
        monkeypatch.setattr(lifecycle, "find", lambda home: running)
        target = LaptopTarget(Project(root))

        digests = publish_locally(target)
        assert publish_locally(target) == digests == local_digests(target.project)
        ecr: Any = Cloud(account.environ(), account.home).client("ecr")
        for name in ("training", "serving"):
            found = ecr.describe_images(repositoryName=f"mlops/{name}")["imageDetails"]
            (image,) = [image for image in found if image.get("imageTags")]
            assert image["imageDigest"] == getattr(digests, name)
            # Training compares the content key with the working tree.
            assert key_tag(content_key(target.project, name)) in image["imageTags"]
    finally:
        account.stop()


def test_a_workflow_does_not_bootstrap_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    notices = Notices()
    stack_operations.prepare_account(PROJECT, tmp_path, notices)  # would fail, because no laptop runs here
    assert notices.notices == []
