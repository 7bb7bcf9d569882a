"""The doctor sees whether the repository on GitHub is set up as it must be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from infra.local.github.hub import Hub
from infra.local.github.settings import Protection, Settings
from pipelines.promotion.forge import Forge
from pipelines.promotion.settings import active_on_main, judge_environments, judge_rules, read_settings

REVIEW = {
    "required_approving_review_count": 1,
    "require_code_owner_review": True,
    "dismiss_stale_reviews_on_push": True,
}
CHECKS = {"required_status_checks": [{"context": "test"}, {"context": "gates"}]}
RULES: list[dict[str, Any]] = [
    {"type": "deletion"},
    {"type": "non_fast_forward"},
    {"type": "pull_request", "parameters": REVIEW},
    {"type": "required_status_checks", "parameters": CHECKS},
]


def test_rules_as_documented_are_accepted() -> None:
    assert all(setting.ok for setting in judge_rules(RULES))


@pytest.mark.parametrize(
    ("index", "parameters", "name"),
    [
        (0, None, "main: deletion"),
        (1, None, "main: force pushes"),
        (2, REVIEW | {"required_approving_review_count": 0}, "main: approvals"),
        (2, REVIEW | {"require_code_owner_review": False}, "main: code owners"),
        (2, REVIEW | {"dismiss_stale_reviews_on_push": False}, "main: stale approvals"),
        (3, {"required_status_checks": [{"context": "test"}]}, "main: required checks"),
    ],
)
def test_a_rule_that_is_missing_or_weaker_is_named(index: int, parameters: Any, name: str) -> None:
    rules = copy.deepcopy(RULES)
    if parameters is None:
        del rules[index]
    else:
        rules[index]["parameters"] = parameters
    assert [setting.name for setting in judge_rules(rules) if not setting.ok] == [name]


def test_without_a_pull_request_rule_nothing_about_reviews_is_taken_for_set() -> None:
    wrong = {setting.name for setting in judge_rules([]) if not setting.ok}
    assert {"main: pull request", "main: approvals", "main: code owners", "main: stale approvals"} <= wrong


@pytest.mark.parametrize(
    ("enforcement", "include", "counts"),
    [
        ("active", ["~DEFAULT_BRANCH"], True),
        ("active", ["refs/heads/main"], True),
        ("evaluate", ["~DEFAULT_BRANCH"], False),
        ("active", ["refs/heads/old"], False),
    ],
)
def test_only_rules_in_force_on_main_count(enforcement: str, include: list[str], counts: bool) -> None:
    ruleset = {"enforcement": enforcement, "conditions": {"ref_name": {"include": include}}}
    assert active_on_main(ruleset) is counts


def test_an_environment_that_is_missing_or_open_to_any_branch_is_named() -> None:
    listed = {
        "environments": [
            {"name": "dev", "deployment_branch_policy": {"custom_branch_policies": True}},
            {"name": "prod", "deployment_branch_policy": None},
        ]
    }
    wrong = {s.name: s.found for s in judge_environments(listed, ("dev", "prod")) if not s.ok}
    assert wrong == {
        "environment prod": "takes deployments from any branch",
        "environment preview": "does not exist",
    }


def test_it_asks_github_by_gh_and_says_what_it_could_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("x\n")
    hub = Hub(tmp_path / "home")
    protection = Protection(required_checks=("test", "gates"))
    environments = {"preview": (), "dev": ("main",), "prod": ("main",)}
    hub.create(source, "acme/mlops", Settings(protection=protection, users=("ada",), environments=environments))
    for name, value in hub.environ("ada").items():
        monkeypatch.setenv(name, value)
    found = read_settings(Forge(source, "acme/mlops"), ("dev", "prod"))
    assert [setting for setting in found if not setting.ok] == []
    monkeypatch.setenv("GH_TOKEN", "nobody")
    blind = read_settings(Forge(source, "acme/mlops"), ("dev", "prod"))
    assert [setting.name for setting in blind] == ["rules of main", "environments"]
    assert all("cannot be seen" in setting.found for setting in blind)
