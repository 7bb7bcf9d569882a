"""No command or workflow reaches AWS without the policy pack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sample_project import ROOT

WORKFLOWS = sorted([*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob(".github/actions/*/action.yml")])
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
RUNS_THE_PROGRAM = re.compile(r"\bpulumi\b.* (up|preview|update)\b")
FENCED = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def steps(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every step of a workflow or of a composite action."""
    if isinstance(node, dict):
        if "run" in node or "uses" in node:
            yield node
        for value in node.values():
            yield from steps(value)
    elif isinstance(node, list):
        for value in node:
            yield from steps(value)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_workflow_runs_the_program_by_mlops_only(file: Path) -> None:
    for step in steps(yaml.safe_load(file.read_text())):
        assert not RUNS_THE_PROGRAM.search(str(step.get("run", ""))), step
        if str(step.get("uses", "")).startswith("pulumi/actions@"):
            assert "command" not in step.get("with", {}), "the action would run the program without the pack"


def test_a_pulumi_command_in_the_documentation_applies_the_pack() -> None:
    found = [
        line
        for page in PAGES
        for _, block in FENCED.findall(page.read_text())
        for line in block.splitlines()
        if RUNS_THE_PROGRAM.search(line)
    ]
    assert found, "the bootstrap page has such a command"
    assert [line for line in found if "--policy-pack" not in line] == []
