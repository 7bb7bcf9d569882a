"""Verdicts on the settings of the repository on GitHub."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.github.gh import GitHubError
from pipelines.github.repository_facts import (
    EnvironmentFacts,
    RepositoryFacts,
    Unreadable,
    form_labels,
    read_repository,
)
from pipelines.github.settings import (
    APP_PERMISSIONS,
    RULE_ROWS,
    Setting,
    WantedSettings,
    active_on_main,
    judge_app,
    judge_environment,
    judge_rules,
    judge_settings,
    placeholder_owners,
    subject_template,
)
from tests.pipelines.github.github_settings_server import APP, FakeGitHub

WANTED = WantedSettings(("dev",), frozenset({"aws"}), "repo:example@5/models@9:environment:{environment}", "s3://state")
REVIEW = {
    "required_approving_review_count": 1,
    "require_code_owner_review": True,
    "dismiss_stale_reviews_on_push": True,
    "require_last_push_approval": True,
}
CHECKS = {"required_status_checks": [{"context": name, "integration_id": 15368} for name in ("test", "gates")]}
RULES: list[dict[str, Any]] = [
    {"type": "deletion"},
    {"type": "non_fast_forward"},
    {"type": "pull_request", "parameters": REVIEW},
    {"type": "required_status_checks", "parameters": CHECKS},
]
OWN = {"actor_id": APP["id"], "actor_type": "Integration", "bypass_mode": "always"}
ADMINS = {"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}
RULESET = {
    "name": "main",
    "enforcement": "active",
    "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
    "bypass_actors": [OWN],
    "rules": RULES,
}
ONLY_MAIN = EnvironmentFacts("dev", ("main",), admins_bypass=False, secrets=frozenset({"APP_PRIVATE_KEY"}))


def facts(**changes: Any) -> RepositoryFacts:
    """Return a repository as documented, with changes."""
    owner = {"login": "example", "id": 5, "type": "Organization"}
    about = {"full_name": "example/models", "id": 9, "owner": owner, "private": True, "permissions": {"admin": True}}
    app = {**APP, "permissions": APP_PERMISSIONS}
    group = dict.fromkeys(("APP_CLIENT_ID", "APP_SLUG", "AWS_REGION", "MLOPS_TARGET"), "x")
    documented = RepositoryFacts(
        about=about,
        plan="team",
        rulesets=(RULESET,),
        environments={
            "dev": replace(ONLY_MAIN, variables={"AWS_DEPLOY_ROLE": "x"}),
            "images": EnvironmentFacts("images", ("main",), variables={"AWS_IMAGES_ROLE": "x"}),
            "preview": EnvironmentFacts("preview", variables={"AWS_PREVIEW_ROLE": "x"}),
        },
        variables=group,
        secrets=frozenset(),
        actions={"enabled": True, "allowed_actions": "all"},
        token={"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False},
        fork_approval=None,
        workflows=({"name": "ci", "state": "active"},),
        labels=frozenset({"aws"}),
        owner_errors=(),
        code_owners="* @example/platform\n",
        app=app,
        installation={"permissions": APP_PERMISSIONS, "repository_selection": "selected"},
        subject={"use_default": True, "use_immutable_subject": True},
    )
    return replace(documented, **changes)


def wrong(**changes: Any) -> dict[str, str]:
    """Return name → value of the settings that are not ok."""
    return {setting.name: setting.found for setting in judge_settings(facts(**changes), WANTED) if not setting.ok}


def test_settings_as_documented_are_accepted() -> None:
    assert wrong() == {}


# --- rules of main ---


def test_without_rules_every_setting_is_wrong() -> None:
    assert {name: found for name, (ok, found) in judge_rules([]).items() if not ok} == {
        "main: pull request": "not required",
        "main: approvals": "0",
        "main: code owners": "need not approve",
        "main: stale approvals": "stay valid",
        "main: last pusher": "may approve",
        "main: required checks": "missing: gates, test",
        "main: force pushes": "allowed",
        "main: deletion": "allowed",
    }


@pytest.mark.parametrize("empty", [{"parameters": {}}, {"parameters": None}, {}])
def test_a_rule_without_parameters_requires_nothing(empty: dict[str, Any]) -> None:
    rules = [{"type": kind, **empty} for kind in ("pull_request", "required_status_checks")]
    ok = {name for name, (ok, _) in judge_rules(rules).items() if ok}
    assert ok == {"main: pull request"}


def test_stricter_rules_are_accepted() -> None:
    rules = copy.deepcopy(RULES)
    rules[2]["parameters"]["required_approving_review_count"] = 2
    rules[3]["parameters"]["required_status_checks"].append({"context": "lint"})
    judged = judge_rules(rules)
    assert judged["main: approvals"] == (True, "2")
    assert all(ok for ok, _ in judged.values()) and set(judged) == set(RULE_ROWS)


@pytest.mark.parametrize(
    ("index", "parameters", "name"),
    [
        (0, None, "main: deletion"),
        (1, None, "main: force pushes"),
        (2, REVIEW | {"required_approving_review_count": 0}, "main: approvals"),
        (2, REVIEW | {"require_code_owner_review": False}, "main: code owners"),
        (2, REVIEW | {"dismiss_stale_reviews_on_push": False}, "main: stale approvals"),
        (2, REVIEW | {"require_last_push_approval": False}, "main: last pusher"),
        (3, {"required_status_checks": [{"context": "test", "integration_id": 15368}]}, "main: required checks"),
        (3, {"required_status_checks": [{"context": "test"}, {"context": "gates"}]}, "main: required checks"),
    ],
)
def test_a_missing_or_weaker_rule_is_reported(index: int, parameters: Any, name: str) -> None:
    rules = copy.deepcopy(RULES)
    if parameters is None:
        del rules[index]
    else:
        rules[index]["parameters"] = parameters
    assert [row for row, (ok, _) in judge_rules(rules).items() if not ok] == [name]


def test_a_check_that_anyone_can_set_is_told_from_one_that_is_missing() -> None:
    checks = [{"context": "test", "integration_id": 7}, {"context": "lint", "integration_id": 15368}]
    rules = [{"type": "required_status_checks", "parameters": {"required_status_checks": checks}}]
    found = judge_rules(rules)["main: required checks"]
    assert found == (False, "missing: gates; from any source: test")


def test_of_two_rules_the_strictest_value_counts() -> None:
    weak = {"type": "pull_request", "parameters": REVIEW | {"required_approving_review_count": 0}}
    for rules in ([*RULES, weak], [weak, *RULES]):
        assert all(ok for ok, _ in judge_rules(rules).values())


@pytest.mark.parametrize(
    ("enforcement", "include", "exclude", "counts"),
    [
        ("active", ["~DEFAULT_BRANCH"], [], True),
        ("active", ["refs/heads/main"], ["refs/heads/old"], True),
        ("active", ["~ALL"], [], True),
        ("active", ["refs/heads/old", "~ALL"], [], True),
        ("active", [], [], False),
        ("evaluate", ["~DEFAULT_BRANCH"], [], False),
        ("active", ["refs/heads/old"], [], False),
        ("active", ["~ALL"], ["refs/heads/main"], False),
        ("active", ["~ALL"], ["~DEFAULT_BRANCH"], False),
    ],
)
def test_only_rulesets_enforced_on_main_count(
    enforcement: str, include: list[str], exclude: list[str], counts: bool
) -> None:
    ruleset = {"enforcement": enforcement, "conditions": {"ref_name": {"include": include, "exclude": exclude}}}
    assert active_on_main(ruleset) is counts


@pytest.mark.parametrize("conditions", [{}, {"conditions": {}}, {"conditions": {"ref_name": {}}}])
def test_a_ruleset_without_conditions_does_not_count(conditions: dict[str, Any]) -> None:
    assert active_on_main({"enforcement": "active", **conditions}) is False


def test_the_rules_of_all_rulesets_on_main_count_together() -> None:
    first, second = {**RULESET, "rules": RULES[:2]}, {**RULESET, "rules": RULES[2:]}
    assert wrong(rulesets=(first, second)) == {}
    assert set(wrong(rulesets=(first, {**second, "enforcement": "disabled"}))) == {*list(RULE_ROWS)[:6], "main: bypass"}


# --- who may bypass them ---


@pytest.mark.parametrize(
    ("actors", "found"),
    [
        ([], "the app may not, so a rollback cannot push"),
        ([ADMINS], "also administrators of the repository; the app may not, so a rollback cannot push"),
        ([OWN, ADMINS], "also administrators of the repository"),
        ([OWN, {"actor_type": "OrganizationAdmin", "actor_id": 1}], "also owners of the organisation"),
        ([OWN, {"actor_type": "DeployKey", "actor_id": None}], "also deploy keys"),
        ([OWN, {"actor_type": "Team", "actor_id": 8}], "also the team 8"),
        ([OWN, {"actor_type": "Integration", "actor_id": 8}], "also the app 8"),
        ([OWN, {"actor_type": "RepositoryRole", "actor_id": 4}], "also RepositoryRole 4"),
    ],
)
def test_only_the_app_may_bypass(actors: list[dict[str, Any]], found: str) -> None:
    assert wrong(rulesets=({**RULESET, "bypass_actors": actors},)) == {"main: bypass": found}


def test_who_may_bypass_one_ruleset_cannot_bypass_another_that_has_every_rule() -> None:
    assert wrong(rulesets=(RULESET, {**RULESET, "bypass_actors": [OWN, ADMINS]})) == {}
    weak = {**RULESET, "rules": RULES[2:3], "bypass_actors": [OWN, ADMINS]}
    rest = {**RULESET, "rules": [RULES[0], RULES[1], RULES[3]]}
    assert set(wrong(rulesets=(weak, rest))) == {"main: bypass"}


def test_the_app_must_be_able_to_pass_every_ruleset() -> None:
    house = {**RULESET, "rules": RULES[2:3], "bypass_actors": []}
    assert set(wrong(rulesets=(RULESET, house))) == {"main: bypass"}


def test_a_ruleset_without_reviews_and_checks_stops_no_rollback() -> None:
    assert wrong(rulesets=(RULESET, {**RULESET, "rules": RULES[:2], "bypass_actors": []})) == {}


def test_a_bypass_list_that_is_not_shown_is_not_visible() -> None:
    hidden = {key: value for key, value in RULESET.items() if key != "bypass_actors"}
    (setting,) = [each for each in judge_settings(facts(rulesets=(hidden,)), WANTED) if not each.ok]
    assert (setting.name, setting.status) == ("main: bypass", "not visible")
    assert "administrators only" in setting.found


def test_without_an_app_nobody_can_roll_back() -> None:
    found = wrong(app=None, installation=None)
    assert found["main: bypass"] == "also the app 77; no app is named"
    assert {"app", "app: installed"} <= set(found)


# --- owners ---


@pytest.mark.parametrize(
    ("text", "owner", "found"),
    [
        ("* @acme/platform\n/x @acme/a @me\n", "example", ("@acme/a", "@acme/platform")),
        ("* @acme/platform\n", "acme", ()),
        ("* @example/acme\n# @acme/platform\n/acme/ @me # @acme/a\n", "example", ()),
        ("", "example", ()),
    ],
)
def test_placeholder_owners_are_found(text: str, owner: str, found: tuple[str, ...]) -> None:
    assert placeholder_owners(text, owner) == found


def test_placeholder_owners_are_wrong_outside_the_template() -> None:
    assert wrong(code_owners="* @acme/a\n") == {"code owners: your own": "placeholders: @acme/a"}
    assert wrong(code_owners="") == {"code owners: your own": "there is no .github/CODEOWNERS"}
    errors = ({"line": 2, "kind": "Unknown owner"},)
    template = {**facts().about, "is_template": True}
    assert wrong(about=template, code_owners="* @acme/a\n", owner_errors=errors) == {}


def test_owners_that_do_not_exist_are_wrong() -> None:
    errors = ({"line": 2, "kind": "Unknown owner"}, {"line": 4, "kind": "Invalid pattern"})
    assert wrong(owner_errors=errors) == {"code owners: valid": "line 2: Unknown owner; line 4: Invalid pattern"}


# --- plan, fork ---


def test_a_private_repository_needs_a_paid_plan() -> None:
    assert wrong(plan="free") == {"plan": "private, plan free"}
    assert wrong(about={**facts().about, "private": False}, plan="free") == {}
    (unseen,) = [each for each in judge_settings(facts(plan=Unreadable("not told")), WANTED) if not each.ok]
    assert (unseen.name, unseen.status, unseen.found) == ("plan", "not visible", "not told")


def test_a_fork_is_wrong() -> None:
    assert wrong(about={**facts().about, "fork": True}) == {"repository: not a fork": "a fork"}


# --- environments ---


@pytest.mark.parametrize(
    ("changes", "ok", "text"),
    [
        ({}, True, "main"),
        ({"branches": None}, False, "every branch"),
        ({"branches": ()}, False, "no branch"),
        ({"branches": ("main", "release/*")}, False, "main, release/*"),
        ({"branches": (), "protected_branches": True}, False, "protected branches"),
        ({"reviewers": (("User", 1, "ada"),)}, True, "main; ada must approve, and a rollback waits for it"),
    ],
)
def test_only_main_may_deploy_to_an_environment(changes: dict[str, Any], ok: bool, text: str) -> None:
    assert judge_environment(replace(ONLY_MAIN, **changes)) == (ok, text)


def test_previews_come_from_any_branch() -> None:
    assert judge_environment(EnvironmentFacts("preview")) == (True, "every branch")
    assert judge_environment(EnvironmentFacts("preview", ("main",))) == (False, "main")


def test_reviewers_that_are_wanted_must_be_there() -> None:
    ada, eve = ("User", 1, "ada"), ("User", 2, "eve")
    found = replace(ONLY_MAIN, reviewers=(ada,))
    assert judge_environment(found, (("User", 1, "Ada"),))[0]
    assert not judge_environment(found, (ada, eve))[0]
    assert not judge_environment(found, ())[0]


def test_an_environment_that_does_not_exist_is_reported_with_its_secret_and_variable() -> None:
    kept = {name: found for name, found in facts().environments.items() if name != "dev"}  # type: ignore[union-attr]
    assert wrong(environments=kept) == {
        "environment dev": "does not exist",
        "secret APP_PRIVATE_KEY: dev": "not set",
        "variable AWS_DEPLOY_ROLE: dev": "not set",
    }


@pytest.mark.parametrize(
    ("private", "plan", "ok"),
    [(True, "enterprise", False), (True, "team", True), (False, "free", False), (True, Unreadable("x"), False)],
)
def test_administrators_may_bypass_only_where_the_plan_cannot_stop_them(private: bool, plan: Any, ok: bool) -> None:
    environments = {**facts().environments, "dev": replace(facts().environments["dev"], admins_bypass=True)}  # type: ignore[dict-item, index]
    found = wrong(about={**facts().about, "private": private}, plan=plan, environments=environments)
    assert ("environments: administrators" not in found) is ok


# --- Actions ---


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"actions": {"enabled": False}}, {"Actions": "off"}),
        ({"actions": {"enabled": True, "allowed_actions": "local_only"}}, {"Actions": "on, but only your own actions"}),
        ({"actions": {"enabled": True, "allowed_actions": "selected"}}, {}),
        ({"workflows": ({"name": "audit", "state": "disabled_fork"},)}, {"workflows": "audit (disabled_fork)"}),
        ({"workflows": ({"name": "old", "state": "deleted"},)}, {}),
        (
            {"token": {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True}},
            {"Actions: token": "write", "Actions: pull requests": "may create and approve"},
        ),
        ({"fork_approval": "first_time_contributors"}, {"Actions: forks": "first_time_contributors"}),
        ({"fork_approval": "all_external_contributors"}, {}),
        ({"labels": frozenset({"bug"})}, {"labels": "missing: aws"}),
        (
            {"secrets": frozenset({"APP_PRIVATE_KEY"})},
            {"secret APP_PRIVATE_KEY: repository": "set: any branch can use it"},
        ),
        (
            {"variables": {"AWS_REGION": "x", "APP_SLUG": "x", "MLOPS_TARGET": "", "APP_CLIENT_ID": "x"}},
            {"variable MLOPS_TARGET: repository": "not set"},
        ),
    ],
)
def test_what_is_not_as_documented_is_reported(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert wrong(**changes) == expected


@pytest.mark.parametrize(
    ("target", "known", "is_wrong"),
    [("aws", "", True), ("", "", True), ("elsewhere", "", False), ("elsewhere", "aws", True)],
)
def test_a_state_is_needed_only_where_jobs_use_aws(target: str, known: str, is_wrong: bool) -> None:
    """`known` is the target in the outputs of the bootstrap, which setup is about to write."""
    variables = {"repository": {"MLOPS_TARGET": known}} if known else {}
    wanted = replace(WANTED, backend=None, variables=variables)
    found = judge_settings(facts(variables={"MLOPS_TARGET": target}), wanted)
    assert ("Pulumi.yaml: backend" in {each.name for each in found if not each.ok}) is is_wrong


# --- the app ---


@pytest.mark.parametrize("level", ["read", None])
def test_an_app_without_a_permission_is_reported_with_the_page_to_change_it(level: str | None) -> None:
    permissions = {**APP_PERMISSIONS, "contents": level} if level else {"actions": "write", "pull_requests": "write"}
    assert judge_app(permissions) == (False, "lacks contents: write")
    html = {**facts().about, "html_url": "https://github.com/example/models"}
    found = judge_settings(facts(about=html, app={**APP, "permissions": permissions}), WANTED)
    (setting,) = [each for each in found if not each.ok]
    assert "https://github.com/organizations/example/settings/apps/example-mlops/permissions" in setting.fix


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (None, "not installed"),
        ({"suspended_at": "2026-01-01T00:00:00Z"}, "suspended"),
        ({"repository_selection": "all"}, "on every repository of the organisation"),
        (
            {"permissions": {}},
            "lacks actions: write, contents: write, pull_requests: write: accept the app's new permissions",
        ),
    ],
)
def test_the_installation_is_judged(changes: dict[str, Any] | None, found: str) -> None:
    good = {"permissions": APP_PERMISSIONS, "repository_selection": "selected"}
    assert wrong(installation=None if changes is None else good | changes) == {"app: installed": found}


# --- the subject of tokens ---


@pytest.mark.parametrize(
    ("custom", "template"),
    [
        (
            {"use_default": True, "use_immutable_subject": False},
            "repo:example/models:environment:{environment}",
        ),
        ({"use_default": True, "use_immutable_subject": True}, "repo:example@5/models@9:environment:{environment}"),
        (
            {"use_default": False, "use_immutable_subject": False},
            "repo:example/models:environment:{environment}",
        ),
        (
            {"use_default": False, "include_claim_keys": ["repository_owner_id", "context"]},
            "repository_owner_id:5:environment:{environment}",
        ),
        (
            {
                "use_default": False,
                "use_immutable_subject": False,
                "include_claim_keys": ["repo", "environment", "repository_visibility"],
            },
            "repo:example/models:environment:{environment}:repository_visibility:private",
        ),
    ],
)
def test_the_subject_of_tokens_is_known(custom: dict[str, Any], template: str) -> None:
    assert subject_template(facts(subject=custom)) == template


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (["repo", "job_workflow_ref", "context"], "the claim job_workflow_ref differs from job to job"),
        (["repo"], "the subject does not name the environment"),
        (["context", "environment"], "the subject names the environment twice"),
    ],
)
def test_a_subject_that_no_role_can_trust_is_reported(keys: list[str], why: str) -> None:
    found = wrong(subject={"use_default": False, "use_immutable_subject": True, "include_claim_keys": keys})
    assert found == {"OIDC subject": f"cannot be trusted: {why}"}


@pytest.mark.parametrize("custom", [{"use_default": True}, {"use_default": False, "include_claim_keys": ["repo"]}])
def test_a_subject_with_or_without_ids_is_not_guessed(custom: dict[str, Any]) -> None:
    (setting,) = [each for each in judge_settings(facts(subject=custom), WANTED) if not each.ok]
    assert (setting.name, setting.status) == ("OIDC subject", "not visible")


def test_a_subject_other_than_the_configured_one_is_reported() -> None:
    found = wrong(subject={"use_default": True, "use_immutable_subject": False})
    assert found == {"OIDC subject": "repo:example/models:environment:{environment}"}


# --- what cannot be read ---


def test_what_a_token_may_not_read_is_not_visible_and_never_ok(tmp_path: Path) -> None:
    server = FakeGitHub.create(tmp_path)
    denied = GitHubError("gh api x: gh: Resource not accessible by personal access token (HTTP 403)", 403)
    below = ("rulesets", "environments", "actions/variables", "actions/secrets", "actions/permissions", "labels")
    more = (
        "actions/permissions/workflow",
        "actions/workflows",
        "codeowners/errors",
        "actions/oidc/customization/sub",
    )
    for path in (*below, *more):
        server.refuse[f"GET repos/example/models/{path}"] = denied
    server.refuse["GET orgs/example"] = denied
    found = judge_settings(read_repository(server, WANTED.github_environments), WANTED)
    known = {"repository: not a fork", "code owners: your own", "app", "app: installed", "Pulumi.yaml: backend"}
    known |= {"Actions: forks"}  # a private repository runs no workflows of forks
    assert {each.name for each in found if each.status != "not visible"} == known
    unseen = [each for each in found if each.status == "not visible"]
    assert all(each.found == "Resource not accessible by personal access token (HTTP 403)" for each in unseen)
    assert not any(each.ok for each in unseen)
    (forks,) = (
        each for each in judge_settings(facts(fork_approval=Unreadable("no")), WANTED) if each.name == "Actions: forks"
    )
    assert forks.status == "not visible"


def test_an_unexpected_answer_is_not_visible(tmp_path: Path) -> None:
    server = FakeGitHub.create(tmp_path)
    server.state["token"] = []
    found = {each.name: each for each in judge_settings(read_repository(server, ("dev",)), WANTED)}
    assert found["Actions: token"].status == "not visible"
    assert found["Actions: token"].found.startswith("unexpected answer: TypeError")


def test_a_list_longer_than_a_page_is_read_whole(tmp_path: Path) -> None:
    class Long(FakeGitHub):
        def _answer(self, method: str, path: str, body: Any) -> Any:
            if "/labels?" in path:
                page = int(path.rpartition("page=")[2])
                return [{"name": f"{page}-{number}"} for number in range(100 if page < 3 else 7)]
            return super()._answer(method, path, body)

    labels = read_repository(Long.create(tmp_path), ()).labels
    assert isinstance(labels, frozenset) and len(labels) == 207 and {"1-99", "2-0", "3-6"} <= labels


def test_labels_of_issue_forms_are_found(tmp_path: Path) -> None:
    folder = tmp_path / ".github/ISSUE_TEMPLATE"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_text("labels: [aws, 'b c']\n")
    (folder / "b.yml").write_text("labels:\n  - bug\n")
    (folder / "config.yml").write_text("blank_issues_enabled: false\n")
    assert form_labels(tmp_path) == {"aws", "b c", "bug"}
    assert form_labels(tmp_path / "absent") == frozenset()


def test_each_setting_that_is_wrong_says_what_to_do() -> None:
    nothing = facts(rulesets=(), environments={}, variables={}, labels=frozenset(), app=None, installation=None)
    found: list[Setting] = [each for each in judge_settings(nothing, WANTED) if not each.ok]
    assert len(found) > 20 and all(each.fix and each.wanted for each in found)
