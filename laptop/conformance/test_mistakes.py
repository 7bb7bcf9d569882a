"""Mistakes: the CLI shows a user's mistake in a program as text, place and fix, without a traceback."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from laptop.conformance.attached_cli import connect, path_with
from laptop.conformance.engines import FoundEngine
from laptop.tests.engine.planted_violations import PACKAGES, AnyProvider
from tests.infra.recording import edit
from tests.sample_project import copy_as_forked


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("repository", "acme", "mlops-bootstrap:account in Pulumi.dev.yaml"),
        (None, {}, "fix: write the account's configuration under config.mlops-bootstrap:account"),
        ("owner", "us", "fix: sign in to AWS so that `aws sts get-caller-identity` answers"),
    ],
    ids=["invalid value", "missing value", "no credentials"],
)
def test_a_mistake_in_the_bootstrap_is_shown_without_a_traceback(
    pulumi_cli: FoundEngine, tmp_path: Path, setting: str | None, value: object, expected: str
) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap") / "infra" / "bootstrap"
    (tmp_path / "project" / ".venv").symlink_to(sys.prefix)
    file = (project / "Pulumi.account.yaml").rename(project / "Pulumi.dev.yaml")
    path = ("config", "mlops-bootstrap:account", setting) if setting else ("config",)
    edit(file, *path, value=value)
    folder = tmp_path / "bin"
    folder.mkdir()
    with ExitStack() as stack:
        # Its providers know no functions, so the program cannot find its account.
        cli = connect(stack, path_with(pulumi_cli, folder), tmp_path, {name: AnyProvider() for name in PACKAGES})
        cli.create_stack(project, "dev")
        done = cli.run(project, "preview", "--stack", "dev")
    assert done.returncode != 0
    shown = " ".join((done.stdout + done.stderr).split())
    assert expected in shown
    assert "Traceback" not in shown
