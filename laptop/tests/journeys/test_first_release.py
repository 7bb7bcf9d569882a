"""The page from an empty account to a release in prod, typed from top to bottom on a realistic laptop."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from laptop import lifecycle
from laptop.project_copy import copy_project
from laptop.tests.typed_page import matches, terminal, typed_blocks
from pipelines.declarations.project import Project
from tests.clones import git
from tests.sample_project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PAGE = ROOT / "docs" / "first-release.md"
FOREIGN = ("AWS_", "GITHUB_", "GH_", "KUBE", "MLOPS_", "PULUMI_", "PYTHON", "PYTEST_")


def test_the_page_from_an_empty_account_to_prod_works_as_typed(tmp_path: Path) -> None:
    root = copy_project(Project(ROOT), tmp_path / "mlops").root
    (root / ".venv").symlink_to(sys.prefix)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "template")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"PYTHONPATH": str(root), "HOME": str(tmp_path)}
    serving = tmp_path / "workflows.log"
    blocks = [block for block in typed_blocks(PAGE) if block.place != "aws"]
    assert len(blocks) > 20
    try:
        with terminal(root, environ, tmp_path) as typist:
            for block in blocks:
                commands = block.commands.replace("make setup\n", "")
                if block.place == "laptop second terminal":
                    typist.type_in_another(commands, serving)
                    continue
                printed = typist.type(commands)
                shown = f"{PAGE.name}:{block.line}\n{printed}\nworkflows:\n{tail(serving)}"
                assert not block.expected or matches(block.expected, printed), shown
    finally:
        lifecycle.stop(root / ".mlops" / "laptop")


def tail(log: Path) -> str:
    """Return the end of a log, if there is one."""
    return log.read_text()[-3000:] if log.exists() else ""
