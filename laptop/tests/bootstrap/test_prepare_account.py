"""The laptop's account is made ready by the bootstrap, once, and by nobody who only runs a workflow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from laptop import lifecycle, stacks
from laptop.aws.account import start
from laptop.aws.cloud import Cloud
from laptop.aws.provider import AwsProvider
from laptop.engine.display import Silence
from tests.sample_project import PROJECT, copy_as_forked


class Notices(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def noticed(self, text: str) -> None:
        self.said.append(text)


def test_an_account_is_made_ready_once_for_the_repository_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    account = start(tmp_path / "aws")
    try:
        provider = AwsProvider(account.environ(), account.home)
        running = SimpleNamespace(home=tmp_path, incarnation="it", providers=lambda: {"aws": provider})
        monkeypatch.setattr(lifecycle, "find", lambda home: running)
        monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

        first, again = Notices(), Notices()
        stacks.prepare_account(root, tmp_path, first)
        stacks.prepare_account(root, tmp_path, again)
        assert [len(notices.said) for notices in (first, again)] == [1, 0]

        roles = stacks.bootstrap(root, tmp_path, "initech/models")
        iam: Any = Cloud(account.environ(), account.home).client("iam")
        for name, arn in {**roles.deploy, "preview": roles.preview}.items():
            trust = iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
            said = trust["Statement"][0]["Condition"]["StringEquals"]
            assert said["token.actions.githubusercontent.com:sub"] == f"repo:initech/models:environment:{name}"
    finally:
        account.stop()


def test_a_job_of_a_workflow_does_not_make_its_own_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    notices = Notices()
    stacks.prepare_account(PROJECT, tmp_path, notices)  # no target runs here, which would be said
    assert notices.said == []
