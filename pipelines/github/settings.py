"""Whether the repository on GitHub is set up as docs/repository-settings.md asks, as far as its API tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.github.forge import Forge

REQUIRED_CHECKS = frozenset({"test", "gates"})
PAGE = "docs/repository-settings.md"


@dataclass(frozen=True)
class Setting:
    """A setting that was looked at.

    Attributes:
        name: which.
        ok: whether it is as it must be.
        found: what is set.
        fix: what to do when it is not.
    """

    name: str
    ok: bool
    found: str
    fix: str = PAGE


def read_settings(forge: Forge, environments: Sequence[str]) -> list[Setting]:
    """Ask GitHub, and judge what it says; what it does not let us see is named as not seen.

    Args:
        forge: the repository.
        environments: that must exist there.
    """

    def ask(path: str) -> Any:
        return json.loads(forge.gh("api", f"repos/{forge.repository}/{path}"))

    settings = []
    try:
        rulesets = [ask(f"rulesets/{r['id']}") for r in ask("rulesets") if r.get("target") == "branch"]
        settings += judge_rules([rule for found in rulesets if active_on_main(found) for rule in found["rules"]])
    except (MlopsError, KeyError, TypeError) as error:
        settings.append(Setting("rules of main", False, f"cannot be seen: {error}", "let this token read the rulesets"))
    try:
        settings += judge_environments(ask("environments"), environments)
    except (MlopsError, KeyError, TypeError) as error:
        settings.append(Setting("environments", False, f"cannot be seen: {error}", "let this token read environments"))
    return settings


def active_on_main(ruleset: Mapping[str, Any]) -> bool:
    """Whether a ruleset is in force on the default branch."""
    included = ruleset.get("conditions", {}).get("ref_name", {}).get("include", [])
    return ruleset.get("enforcement") == "active" and bool(
        {"~DEFAULT_BRANCH", "~ALL", "refs/heads/main"} & set(included)
    )


def judge_rules(rules: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """What the rules in force on main ask of a pull request."""
    by_type: dict[str, Mapping[str, Any]] = {str(rule["type"]): rule.get("parameters") or {} for rule in rules}
    review = by_type.get("pull_request")
    checks = {c["context"] for c in by_type.get("required_status_checks", {}).get("required_status_checks", [])}
    missing = sorted(REQUIRED_CHECKS - checks)
    approvals = int(review.get("required_approving_review_count", 0)) if review is not None else 0
    return [
        Setting("main: pull request", review is not None, "required" if review is not None else "a push is enough"),
        Setting("main: approvals", approvals >= 1, str(approvals)),
        Setting(
            "main: code owners",
            review is not None and bool(review.get("require_code_owner_review")),
            "must approve" if review is not None and review.get("require_code_owner_review") else "are not asked",
        ),
        Setting(
            "main: stale approvals",
            review is not None and bool(review.get("dismiss_stale_reviews_on_push")),
            "dismissed" if review is not None and review.get("dismiss_stale_reviews_on_push") else "stay valid",
        ),
        Setting("main: required checks", not missing, f"missing: {', '.join(missing)}" if missing else "test, gates"),
        Setting("main: force pushes", "non_fast_forward" in by_type, _blocked("non_fast_forward" in by_type)),
        Setting("main: deletion", "deletion" in by_type, _blocked("deletion" in by_type)),
    ]


def _blocked(is_blocked: bool) -> str:
    return "blocked" if is_blocked else "allowed"


def judge_environments(listed: Mapping[str, Any], wanted: Sequence[str]) -> list[Setting]:
    """Whether each environment exists, and takes deployments from protected or chosen branches only."""
    found = {str(environment["name"]): environment for environment in listed["environments"]}
    settings = []
    for name in (*wanted, "preview"):
        environment = found.get(name)
        if environment is None:
            settings.append(Setting(f"environment {name}", False, "does not exist"))
        elif name == "preview" or environment.get("deployment_branch_policy"):
            settings.append(Setting(f"environment {name}", True, "exists"))
        else:
            settings.append(Setting(f"environment {name}", False, "takes deployments from any branch"))
    return settings
