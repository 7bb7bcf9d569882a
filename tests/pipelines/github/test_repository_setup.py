"""Set up a repository on GitHub: a plan that is idempotent, and that finishes what failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import GitHubError
from pipelines.github.repository_facts import read_repository
from pipelines.github.repository_setup import SetupOptions, apply_prepared, judge_repository, prepare_setup
from pipelines.github.settings import APP_PERMISSIONS, judge_settings
from pipelines.github.setup_plan import plan_setup, settable, wanted_ruleset
from tests.pipelines.github.github_settings_server import APP, REPOSITORY, FakeGitHub

ENVIRONMENTS = ("dev", "prod")
VARIABLES = {
    "repository": {"AWS_REGION": "eu-west-1", "MLOPS_TARGET": "aws"},
    "preview": {"AWS_PREVIEW_ROLE": "arn:preview"},
    "images": {"AWS_IMAGES_ROLE": "arn:images"},
    "dev": {"AWS_DEPLOY_ROLE": "arn:dev"},
    "prod": {"AWS_DEPLOY_ROLE": "arn:prod"},
}
KEY = "-----BEGIN RSA PRIVATE KEY-----\nabc\n"
STATE = "s3://mlops-account-state-123456789012?region=eu-west-1"
OPTIONS = SetupOptions(
    app="example-mlops", variables=VARIABLES, backend=STATE, key=KEY, owners={"data-science": "@grace"}
)
LATER = SetupOptions()

CODE_OWNERS = """\
# Who must approve what.
*                               @acme/ml-platform
/models/                        @acme/data-science
/models/*/releases/prod.yaml    @acme/ml-approvers  # prod
"""
ACCOUNT = """\
config:
  mlops-bootstrap:account:
    repository: acme/mlops # your repository, owner/name
    repository_ids: null # ids
    subject_template: null
    owner: ml-platform
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        ".github/CODEOWNERS": CODE_OWNERS,
        ".github/ISSUE_TEMPLATE/aws.yml": "name: x\nlabels: [aws, bug]\n",
        "infra/bootstrap/Pulumi.account.yaml": ACCOUNT,
        "Pulumi.yaml": "name: mlops\nmain: infra\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def server(root: Path) -> FakeGitHub:
    return FakeGitHub.create(root)


def apply(server: FakeGitHub, options: SetupOptions = OPTIONS) -> list[GitHubError]:
    prepared = prepare_setup(server, ENVIRONMENTS, options)
    return [error for _, error in apply_prepared(server, prepared, options) if error is not None]


def install_app(server: FakeGitHub) -> None:
    """Do what only a person can: grant the app's permissions and install it."""
    server.state["apps"]["example-mlops"]["permissions"] = dict(APP_PERMISSIONS)
    found = {"app_slug": "example-mlops", "permissions": dict(APP_PERMISSIONS), "repository_selection": "selected"}
    server.state["installations"].append(found)


def test_a_plan_changes_nothing(server: FakeGitHub, root: Path) -> None:
    prepared = prepare_setup(server, ENVIRONMENTS, OPTIONS)
    assert prepared.plan.changes and prepared.files
    assert server.writes == []
    assert (root / ".github/CODEOWNERS").read_text() == CODE_OWNERS


def test_setup_makes_every_setting_as_documented_but_those_of_people(server: FakeGitHub) -> None:
    assert apply(server) == []
    left = {setting.name: setting.found for setting in judge_repository(server, ENVIRONMENTS) if not setting.ok}
    assert left == {"app": "lacks pull_requests: write", "app: installed": "not installed"}
    install_app(server)
    assert [setting for setting in judge_repository(server, ENVIRONMENTS) if not setting.ok] == []


def test_a_second_setup_has_nothing_to_do(server: FakeGitHub) -> None:
    apply(server)
    install_app(server)
    server.writes.clear()
    again = prepare_setup(server, ENVIRONMENTS, SetupOptions(variables=VARIABLES))
    assert again.is_done and again.plan.by_hand == ()
    assert apply(server, LATER) == [] and server.writes == []


def test_in_a_public_repository_workflows_of_all_forks_wait_for_an_approval(server: FakeGitHub) -> None:
    apply(server)
    assert server.state["forks"]["approval_policy"] == "first_time_contributors", "private: forks run no workflows"
    server.state["about"]["private"] = False
    apply(server)
    assert server.state["forks"]["approval_policy"] == "all_external_contributors"


def test_every_setting_that_setup_claims_to_change_is_changed(server: FakeGitHub) -> None:
    """The names in the areas are names of settings, and no requests are missing for one of them."""
    prepared = prepare_setup(server, ENVIRONMENTS, OPTIONS)
    planned = {setting.name for change in prepared.plan.changes for setting in change.settings}
    facts = read_repository(server, prepared.wanted.github_environments, "example-mlops")
    judged = {setting.name: setting for setting in judge_settings(facts, prepared.wanted)}
    assert settable(prepared.wanted) <= set(judged)
    assert planned == {name for name in settable(prepared.wanted) if not judged[name].ok}


@pytest.mark.parametrize(
    "refused",
    [
        "PUT repos/example/models/environments/prod",
        "POST repos/example/models/environments/dev/deployment-branch-policies",
        "POST repos/example/models/rulesets",
        "PATCH repos/example/models/actions/variables/AWS_REGION",
        "POST repos/example/models/environments/images/variables",
        "PUT repos/example/models/actions/permissions/workflow",
        "PUT repos/example/models/actions/workflows/2/enable",
        "POST repos/example/models/labels",
    ],
)
def test_a_rerun_finishes_what_failed(server: FakeGitHub, refused: str) -> None:
    server.state["variables"][""]["AWS_REGION"] = "us-east-1"
    server.refuse[refused] = GitHubError("gh: Server Error (HTTP 500)", 500)
    assert apply(server) != []
    server.refuse.clear()
    assert apply(server) == []
    install_app(server)
    assert [setting for setting in judge_repository(server, ENVIRONMENTS) if not setting.ok] == []


def test_a_failure_does_not_stop_the_other_changes(server: FakeGitHub) -> None:
    server.refuse["PUT repos/example/models/actions/permissions"] = GitHubError("gh: Not allowed (HTTP 409)", 409)
    assert [error.status for error in apply(server)] == [409]
    wrong = {setting.name for setting in judge_repository(server, ENVIRONMENTS) if not setting.ok}
    assert wrong == {"Actions", "app", "app: installed"}


def test_the_key_is_no_argument_and_is_a_secret_of_environments_only(server: FakeGitHub) -> None:
    apply(server)
    assert server.state["secret values"] == {("dev", "APP_PRIVATE_KEY"): KEY, ("prod", "APP_PRIVATE_KEY"): KEY}
    assert not any("BEGIN" in write for write in server.writes)


def test_without_a_key_the_secret_is_left_to_a_person(server: FakeGitHub) -> None:
    prepared = prepare_setup(server, ENVIRONMENTS, SetupOptions(app="example-mlops"))
    assert {"secret APP_PRIVATE_KEY: dev", "secret APP_PRIVATE_KEY: prod"} <= {
        setting.name for setting in prepared.plan.by_hand
    }


@pytest.mark.parametrize(
    ("permissions", "found"), [({"pull": True, "push": True}, "push"), ({"pull": True}, "pull"), (None, "none")]
)
def test_who_is_not_an_administrator_is_refused_by_name(root: Path, permissions: Any, found: str) -> None:
    server = FakeGitHub.create(root, permissions=permissions)
    with pytest.raises(MlopsError, match=f"rights on {REPOSITORY}: expected the role admin, found {found}"):
        prepare_setup(server, ENVIRONMENTS, OPTIONS)
    assert server.writes == []


def test_main_is_protected_last(server: FakeGitHub) -> None:
    """Until then, the files that setup writes can be committed without an approval."""
    apply(server)
    assert server.writes[-1] == "POST rulesets"


def test_a_person_keeps_what_is_stricter(server: FakeGitHub) -> None:
    apply(server)
    (ruleset,) = server.state["rulesets"].values()
    review = next(rule for rule in ruleset["rules"] if rule["type"] == "pull_request")
    review["parameters"] |= {"required_approving_review_count": 2, "require_last_push_approval": False}
    ruleset["rules"].append({"type": "merge_queue", "parameters": {"grouping_strategy": "ALLGREEN"}})
    checks = next(rule for rule in ruleset["rules"] if rule["type"] == "required_status_checks")
    checks["parameters"]["required_status_checks"].append({"context": "lint"})
    assert apply(server, LATER) == []
    (ruleset,) = server.state["rulesets"].values()
    rules = {rule["type"]: rule.get("parameters") for rule in ruleset["rules"]}
    assert rules["pull_request"]["required_approving_review_count"] == 2
    assert rules["pull_request"]["require_last_push_approval"] is True
    assert rules["merge_queue"] == {"grouping_strategy": "ALLGREEN"}
    assert {"context": "lint"} in rules["required_status_checks"]["required_status_checks"]
    assert ruleset["bypass_actors"] == [{"actor_id": APP["id"], "actor_type": "Integration", "bypass_mode": "always"}]


def test_a_ruleset_of_another_name_is_left_alone(server: FakeGitHub) -> None:
    other = {"name": "house rules", "target": "branch", **wanted_ruleset(None, 4)} | {"name": "house rules"}
    server.state["rulesets"][1] = json.loads(json.dumps(other))
    assert apply(server) == []
    assert server.state["rulesets"][1] == other
    assert server.state["rulesets"][2]["name"] == "mlops: main"
    judged = {setting.name: setting for setting in judge_repository(server, ENVIRONMENTS)}
    assert judged["main: bypass"].found == "the app may not, so a rollback cannot push"


def test_people_in_the_bypass_list_are_taken_out(server: FakeGitHub) -> None:
    apply(server)
    (ruleset,) = server.state["rulesets"].values()
    ruleset["bypass_actors"].append({"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"})
    judged = {setting.name: setting for setting in judge_repository(server, ENVIRONMENTS)}
    assert judged["main: bypass"].found == "also administrators of the repository"
    apply(server, LATER)
    (ruleset,) = server.state["rulesets"].values()
    assert [actor["actor_id"] for actor in ruleset["bypass_actors"]] == [APP["id"]]


def test_branches_but_main_lose_their_access_to_an_environment(server: FakeGitHub) -> None:
    policy = {"protected_branches": False, "custom_branch_policies": True}
    server.state["environments"]["prod"] = {"deployment_branch_policy": policy, "policies": {1: "main", 2: "release/*"}}
    before = {setting.name: setting for setting in judge_repository(server, ENVIRONMENTS)}
    assert before["environment prod"].found == "main, release/*"
    apply(server)
    assert server.state["environments"]["prod"]["policies"] == {1: "main"}


def test_reviewers_and_waits_of_an_environment_are_kept(server: FakeGitHub) -> None:
    people = [{"type": "User", "id": 31}]
    server.state["environments"]["prod"] = {"reviewers": people, "wait_timer": 10, "policies": {}}
    apply(server)
    found = server.state["environments"]["prod"]
    assert (found["reviewers"], found["wait_timer"], found["can_admins_bypass"]) == (people, 10, False)


def test_reviewers_are_set_on_request(server: FakeGitHub) -> None:
    options = SetupOptions(reviewers={"prod": ["grace", "example/ml-approvers"]})
    assert apply(server, options) == []
    reviewers = server.state["environments"]["prod"]["reviewers"]
    assert reviewers == [{"type": "User", "id": 31}, {"type": "Team", "id": 2}]
    assert "reviewers" not in server.state["environments"]["dev"]


@pytest.mark.parametrize("name", ["nobody", "example/nobody"])
def test_an_unknown_reviewer_is_refused(server: FakeGitHub, name: str) -> None:
    with pytest.raises(MlopsError, match=r"Not Found|does not exist"):
        prepare_setup(server, ENVIRONMENTS, SetupOptions(reviewers={"prod": [name]}))


def test_a_plan_without_all_protections_gets_those_that_it_has(server: FakeGitHub) -> None:
    answer = server._answer

    def limited(method: str, path: str, body: Any) -> Any:
        if method == "PUT" and "can_admins_bypass" in body:
            raise GitHubError("gh: Failed to create the environment protection rule. (HTTP 422)", 422)
        return answer(method, path, body)

    object.__setattr__(server, "_answer", limited)
    assert apply(server) == []
    judged = {setting.name: setting for setting in judge_repository(server, ENVIRONMENTS)}
    assert judged["environment prod"].ok
    assert judged["environments: administrators"].ok
    assert judged["environments: administrators"].found == "may bypass dev, prod: plan team"
    again = prepare_setup(server, ENVIRONMENTS, SetupOptions(variables=VARIABLES))
    assert again.is_done


def test_without_an_app_the_rules_are_made_and_the_bypass_is_left_to_a_person(server: FakeGitHub) -> None:
    assert apply(server, SetupOptions()) == []
    (ruleset,) = server.state["rulesets"].values()
    assert ruleset["bypass_actors"] == []
    again = prepare_setup(server, ENVIRONMENTS, SetupOptions())
    assert again.is_done
    assert {"main: bypass", "app", "variable AWS_REGION: repository"} <= {each.name for each in again.plan.by_hand}


def test_an_unknown_app_is_refused(server: FakeGitHub) -> None:
    with pytest.raises(MlopsError, match="the GitHub App nobody: Not Found"):
        prepare_setup(server, ENVIRONMENTS, SetupOptions(app="nobody"))


def test_outputs_of_another_project_are_refused(server: FakeGitHub) -> None:
    with pytest.raises(MlopsError, match="qa: expected one of dev, images, preview, prod, repository"):
        prepare_setup(server, ENVIRONMENTS, SetupOptions(variables={"qa": {"AWS_DEPLOY_ROLE": "x"}}))


def test_the_files_are_written_for_the_repository(server: FakeGitHub, root: Path) -> None:
    prepared = prepare_setup(server, ENVIRONMENTS, OPTIONS)
    assert prepared.absent_teams == ()
    apply(server)
    assert (
        (root / ".github/CODEOWNERS").read_text()
        == """\
# Who must approve what.
*                               @example/ml-platform
/models/                        @grace
/models/*/releases/prod.yaml    @example/ml-approvers # prod
"""
    )
    assert (
        (root / "infra/bootstrap/Pulumi.account.yaml").read_text()
        == """\
config:
  mlops-bootstrap:account:
    repository: example/models # your repository, owner/name
    repository_ids: {owner: 5, repository: 9} # ids
    subject_template: null
    owner: ml-platform
"""
    )


def test_plan_and_verdicts_need_no_network(server: FakeGitHub) -> None:
    """The plan is a function of the facts: a plan from facts that were read earlier is the same."""
    prepared = prepare_setup(server, ENVIRONMENTS, OPTIONS)
    facts = read_repository(server, prepared.wanted.github_environments, "example-mlops")
    object.__setattr__(server, "state", {})
    assert plan_setup(facts, prepared.wanted, has_key=True) == prepared.plan
