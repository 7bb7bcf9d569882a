"""Pages of the documentation, typed from top to bottom on a laptop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from laptop import lifecycle
from laptop.project_copy import copy_project
from laptop.tests.journeys.laptop_of_journeys import ordinary_laptop_only
from laptop.tests.typed_page import TypedBlock, matches, terminal, typed_blocks
from pipelines.declarations.project import Project
from tests.clones import git
from tests.sample_project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

FIRST_RELEASE = ROOT / "docs" / "first-release.md"
LAPTOP = ROOT / "laptop" / "docs" / "README.md"
DATA_SCIENTIST = ROOT / "docs" / "data-scientist.md"
FOREIGN = ("AWS_", "GITHUB_", "GH_", "KUBE", "MLOPS_", "PULUMI_", "PYTHON", "PYTEST_")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A clone of the template, set up; its laptops end with the test."""
    root = copy_project(Project(ROOT), tmp_path / "mlops").root
    (root / ".venv").symlink_to(sys.prefix)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "template")
    yield root
    for home in (root / ".mlops" / "laptop", root / ".mlops" / "demo" / "laptop"):
        lifecycle.stop(home)


def type_all(blocks: list[TypedBlock], page: Path, clone: Path) -> None:
    """Type the blocks of a page that are for the laptop, and compare what they print."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"PYTHONPATH": str(clone), "HOME": str(clone.parent), "PATH": f"{sys.prefix}/bin:{environ['PATH']}"}
    workflows = clone.parent / "workflows.log"
    with terminal(clone, environ, clone.parent) as typist:
        for block in blocks:
            commands = block.commands.replace("make setup\n", "")
            if block.place.endswith("second terminal"):
                typist.type_in_another(commands, workflows)
            elif block.place != "aws":
                printed = typist.type(commands)
                shown = f"{page.name}:{block.line}\n{printed}\nworkflows:\n{tail(workflows)}"
                assert not block.expected or matches(block.expected, printed), shown


def tail(log: Path) -> str:
    """Return the end of a log, if there is one."""
    return log.read_text()[-3000:] if log.exists() else ""


def test_an_empty_account_gets_a_release_in_prod_and_goes_back(clone: Path) -> None:
    blocks = typed_blocks(FIRST_RELEASE)
    assert sum(block.place != "aws" for block in blocks) > 20
    type_all(blocks, FIRST_RELEASE, clone)


@ordinary_laptop_only("the section says how to start one, and that is an ordinary one")
@pytest.mark.parametrize(
    ("page", "section"),
    [
        (LAPTOP, "Start and stop"),
        (LAPTOP, "Explore the demo"),
        (LAPTOP, "Host your own working tree"),
        (DATA_SCIENTIST, "Run it on the laptop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_section_works_as_typed(page: Path, section: str, clone: Path) -> None:
    blocks = typed_blocks(page, section)
    assert blocks
    type_all(blocks, page, clone)
