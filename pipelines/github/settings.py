"""Check the settings of the repository on GitHub against docs/repository-settings.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh

REQUIRED_CHECKS = frozenset({"test", "gates"})
PAGE = "docs/repository-settings.md"


@dataclass(frozen=True)
class Setting:
    """A setting of the repository, and the verdict on it.

    Attributes:
        name: the setting.
        ok: True if it is as documented.
        found: its value.
        fix: what to do if it is wrong.
    """

    name: str
    ok: bool
    found: str
    fix: str = PAGE


def read_settings(gh: Gh, environments: Sequence[str]) -> list[Setting]:
    """Read the settings of main and of the environments, and judge them.

    A setting that the token may not read is reported as wrong.

    Args:
        gh: the repository.
        environments: the environments that must exist there.
    """
    settings = []
    try:
        rulesets = [gh.get(f"rulesets/{r['id']}") for r in gh.get("rulesets") if r.get("target") == "branch"]
        settings += judge_rules([rule for found in rulesets if active_on_main(found) for rule in found["rules"]])
    except (MlopsError, KeyError, TypeError) as error:
        settings.append(Setting("rules of main", False, f"not readable: {error}", "let this token read the rulesets"))
    try:
        settings += judge_environments(gh.get("environments"), environments)
    except (MlopsError, KeyError, TypeError) as error:
        settings.append(Setting("environments", False, f"not readable: {error}", "let this token read environments"))
    return settings


def active_on_main(ruleset: Mapping[str, Any]) -> bool:
    """Return whether a ruleset is enforced on the default branch."""
    included = ruleset.get("conditions", {}).get("ref_name", {}).get("include", [])
    return ruleset.get("enforcement") == "active" and bool(
        {"~DEFAULT_BRANCH", "~ALL", "refs/heads/main"} & set(included)
    )


def judge_rules(rules: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Judge the rules that are enforced on main."""
    by_type: dict[str, Mapping[str, Any]] = {str(rule["type"]): rule.get("parameters") or {} for rule in rules}
    review = by_type.get("pull_request")
    checks = {c["context"] for c in by_type.get("required_status_checks", {}).get("required_status_checks", [])}
    missing = sorted(REQUIRED_CHECKS - checks)
    approvals = int(review.get("required_approving_review_count", 0)) if review is not None else 0
    owners = review is not None and bool(review.get("require_code_owner_review"))
    stale = review is not None and bool(review.get("dismiss_stale_reviews_on_push"))
    return [
        Setting("main: pull request", review is not None, "required" if review is not None else "not required"),
        Setting("main: approvals", approvals >= 1, str(approvals)),
        Setting("main: code owners", owners, "must approve" if owners else "need not approve"),
        Setting("main: stale approvals", stale, "dismissed" if stale else "stay valid"),
        Setting("main: required checks", not missing, f"missing: {', '.join(missing)}" if missing else "test, gates"),
        Setting("main: force pushes", "non_fast_forward" in by_type, _blocked("non_fast_forward" in by_type)),
        Setting("main: deletion", "deletion" in by_type, _blocked("deletion" in by_type)),
    ]


def _blocked(is_blocked: bool) -> str:
    return "blocked" if is_blocked else "allowed"


def judge_environments(listed: Mapping[str, Any], wanted: Sequence[str]) -> list[Setting]:
    """Judge whether each environment exists, and limits which branches may deploy to it."""
    found = {str(environment["name"]): environment for environment in listed["environments"]}
    settings = []
    for name in (*wanted, "images", "preview"):
        environment = found.get(name)
        if environment is None:
            settings.append(Setting(f"environment {name}", False, "does not exist"))
        elif name == "preview" or environment.get("deployment_branch_policy"):
            settings.append(Setting(f"environment {name}", True, "exists"))
        else:
            settings.append(Setting(f"environment {name}", False, "accepts deployments from any branch"))
    return settings
