"""The page of repository settings: one row for each finding of the doctor, which says who sets it."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.github.repository_facts import read_repository
from pipelines.github.settings import PAGE, WantedSettings, judge_settings
from pipelines.github.setup_plan import settable
from tests.pipelines.github.github_settings_server import FakeGitHub

ROOT = Path(__file__).parents[3]
WANTED = WantedSettings(("dev",))


def general(name: str) -> str:
    return re.sub(r"\bdev$", "<environment>", name)


def rows() -> list[tuple[str, str]]:
    """Return the settings of the page, each with who sets it."""
    found = re.findall(r"^\| `([^`]+)` \|[^|]+\| (setup|you) \|", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert found
    return found


def test_the_page_has_a_row_for_each_finding(tmp_path: Path) -> None:
    facts = read_repository(FakeGitHub.create(tmp_path), WANTED.github_environments)
    findings = [general(setting.name) for setting in judge_settings(facts, WANTED)]
    assert len(set(findings)) == len(findings)
    assert sorted(findings) == sorted(name for name, _ in rows())


def test_the_page_says_what_setup_sets() -> None:
    assert {name for name, by in rows() if by == "setup"} == {general(name) for name in settable(WANTED)}
