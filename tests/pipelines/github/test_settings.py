"""Settings of the repository on GitHub."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.settings import Setting, active_on_main, judge_environments, judge_rules, read_settings

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


def outcomes(settings: list[Setting]) -> list[tuple[str, bool, str]]:
    """Return name, verdict and value of each setting; every fix must be the documentation page."""
    assert all(setting.fix == "docs/repository-settings.md" and type(setting.ok) is bool for setting in settings)
    return [(setting.name, setting.ok, setting.found) for setting in settings]


def test_rules_as_documented_are_accepted() -> None:
    assert outcomes(judge_rules(RULES)) == [
        ("main: pull request", True, "required"),
        ("main: approvals", True, "1"),
        ("main: code owners", True, "must approve"),
        ("main: stale approvals", True, "dismissed"),
        ("main: required checks", True, "test, gates"),
        ("main: force pushes", True, "blocked"),
        ("main: deletion", True, "blocked"),
    ]


def test_without_rules_every_setting_is_wrong() -> None:
    assert outcomes(judge_rules([])) == [
        ("main: pull request", False, "not required"),
        ("main: approvals", False, "0"),
        ("main: code owners", False, "need not approve"),
        ("main: stale approvals", False, "stay valid"),
        ("main: required checks", False, "missing: gates, test"),
        ("main: force pushes", False, "allowed"),
        ("main: deletion", False, "allowed"),
    ]


@pytest.mark.parametrize("empty", [{"parameters": {}}, {"parameters": None}, {}])
def test_a_rule_without_parameters_requires_nothing(empty: dict[str, Any]) -> None:
    rules = [{"type": kind, **empty} for kind in ("pull_request", "required_status_checks")]
    assert outcomes(judge_rules(rules))[:5] == [
        ("main: pull request", True, "required"),
        ("main: approvals", False, "0"),
        ("main: code owners", False, "need not approve"),
        ("main: stale approvals", False, "stay valid"),
        ("main: required checks", False, "missing: gates, test"),
    ]


def test_stricter_rules_are_accepted() -> None:
    rules = copy.deepcopy(RULES)
    rules[2]["parameters"]["required_approving_review_count"] = 2
    rules[3]["parameters"]["required_status_checks"].append({"context": "lint"})
    assert ("main: approvals", True, "2") in outcomes(judge_rules(rules))
    assert all(setting.ok for setting in judge_rules(rules))


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
def test_a_missing_or_weaker_rule_is_reported(index: int, parameters: Any, name: str) -> None:
    rules = copy.deepcopy(RULES)
    if parameters is None:
        del rules[index]
    else:
        rules[index]["parameters"] = parameters
    assert [setting.name for setting in judge_rules(rules) if not setting.ok] == [name]


def test_without_a_pull_request_rule_every_review_setting_is_wrong() -> None:
    wrong = {setting.name for setting in judge_rules([]) if not setting.ok}
    assert {"main: pull request", "main: approvals", "main: code owners", "main: stale approvals"} <= wrong


@pytest.mark.parametrize(
    ("enforcement", "include", "counts"),
    [
        ("active", ["~DEFAULT_BRANCH"], True),
        ("active", ["refs/heads/main"], True),
        ("active", ["~ALL"], True),
        ("active", ["refs/heads/old", "~ALL"], True),
        ("active", [], False),
        ("evaluate", ["~DEFAULT_BRANCH"], False),
        ("active", ["refs/heads/old"], False),
    ],
)
def test_only_rulesets_enforced_on_main_count(enforcement: str, include: list[str], counts: bool) -> None:
    ruleset = {"enforcement": enforcement, "conditions": {"ref_name": {"include": include}}}
    assert active_on_main(ruleset) is counts


@pytest.mark.parametrize("conditions", [{}, {"conditions": {}}, {"conditions": {"ref_name": {}}}])
def test_a_ruleset_without_conditions_does_not_count(conditions: dict[str, Any]) -> None:
    assert active_on_main({"enforcement": "active", **conditions}) is False


def test_a_ruleset_without_an_enforcement_does_not_count() -> None:
    assert active_on_main({"conditions": {"ref_name": {"include": ["~ALL"]}}}) is False


def test_environments_as_documented_are_accepted() -> None:
    listed = {
        "environments": [
            {"name": "preview"},
            {"name": "images", "deployment_branch_policy": {"protected_branches": True}},
            {"name": "dev", "deployment_branch_policy": {"protected_branches": True}},
            {"name": "old"},
        ]
    }
    assert outcomes(judge_environments(listed, ("dev",))) == [
        ("environment dev", True, "exists"),
        ("environment images", True, "exists"),
        ("environment preview", True, "exists"),
    ]


class CannedGh(Gh):
    """Fake GitHub with canned answers: path below the repository → answer."""

    answers: ClassVar[dict[str, Any]] = {}

    def run(self, *arguments: str) -> str:
        command, path = arguments
        assert command == "api" and path.startswith("repos/acme/mlops/"), arguments
        answer = self.answers[path.removeprefix("repos/acme/mlops/")]
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer)


RULESET = {"enforcement": "active", "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"]}}}
POLICY = {"deployment_branch_policy": {"x": 1}}
OPEN = {"environments": [{"name": "preview"}, {"name": "images", **POLICY}, {"name": "dev", **POLICY}]}
ANSWERS: dict[str, Any] = {
    "rulesets": [{"id": 1, "target": "branch"}, {"id": 2, "target": "tag"}, {"id": 3, "target": "branch"}, {"id": 4}],
    "rulesets/1": {**RULESET, "rules": RULES[:2]},
    "rulesets/2": {**RULESET, "rules": []},
    "rulesets/3": {**RULESET, "rules": RULES[2:]},
    "environments": OPEN,
}


def settings_with(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Setting]:
    monkeypatch.setattr(CannedGh, "answers", {**ANSWERS, **{k.replace("_", "/"): v for k, v in changes.items()}})
    return read_settings(CannedGh(Path(), "acme/mlops"), ("dev",))


def test_the_rules_of_all_rulesets_on_main_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings_with(monkeypatch)
    assert found == [*judge_rules(RULES), *judge_environments(OPEN, ("dev",))]
    assert all(setting.ok for setting in found)
    away = {**RULESET, "enforcement": "disabled", "rules": RULES[2:]}
    assert settings_with(monkeypatch, rulesets_3=away)[:7] == judge_rules(RULES[:2])


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (MlopsError("gh api: HTTP 403"), "not readable: gh api: HTTP 403"),
        ([{"target": "branch"}], "not readable: 'id'"),
        (7, "not readable: 'int' object is not iterable"),
    ],
)
def test_unreadable_rules_are_reported_as_wrong(monkeypatch: pytest.MonkeyPatch, failure: Any, says: str) -> None:
    found = settings_with(monkeypatch, rulesets=failure)
    assert found[0] == Setting("rules of main", False, says, "let this token read the rulesets")
    assert found[1:] == judge_environments(OPEN, ("dev",))


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (MlopsError("gh api: HTTP 403"), "not readable: gh api: HTTP 403"),
        ({}, "not readable: 'environments'"),
        (None, "not readable: 'NoneType' object is not subscriptable"),
    ],
)
def test_unreadable_environments_are_reported_as_wrong(
    monkeypatch: pytest.MonkeyPatch, failure: Any, says: str
) -> None:
    found = settings_with(monkeypatch, environments=failure)
    assert found[-1] == Setting("environments", False, says, "let this token read environments")
    assert found[:-1] == judge_rules(RULES)


def test_an_environment_that_is_missing_or_open_to_any_branch_is_reported() -> None:
    listed = {
        "environments": [
            {"name": "dev", "deployment_branch_policy": {"custom_branch_policies": True}},
            {"name": "prod", "deployment_branch_policy": None},
            {"name": "images", "deployment_branch_policy": None},
        ]
    }
    assert outcomes(judge_environments(listed, ("dev", "prod"))) == [
        ("environment dev", True, "exists"),
        ("environment prod", False, "accepts deployments from any branch"),
        ("environment images", False, "accepts deployments from any branch"),
        ("environment preview", False, "does not exist"),
    ]
