"""`mlops github setup` and the doctor on a repository on the laptop's GitHub."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from laptop import stack_operations
from laptop.github.forge.actors import Actor, RequestDeniedError, person
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.forge.rest_api import request
from laptop.github.forge.settings_routes import set_environment_secret
from laptop.github.hosting import Roles, host
from laptop.github.hub import Hub
from laptop.laptop_target import LaptopTarget
from laptop.tests.github.sample_repository import git, push, write
from pipelines.cli.main import main
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.repository_setup import SetupOptions, apply_prepared, judge_repository, prepare_setup

pytestmark = pytest.mark.slow

CI = "name: ci\non: push\npermissions: {}\njobs:\n  test:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: 'true'\n"
FILES = {
    ".github/CODEOWNERS": "* @acme/platform\n/models/ @acme/nobody\n",
    ".github/ISSUE_TEMPLATE/aws.yml": "labels: [aws]\n",
    ".github/workflows/ci.yml": CI,
    ".github/workflows/audit.yml": CI.replace("name: ci", "name: audit"),
}
FRESH = RepositorySettings(
    users=("ada", "grace"),
    administrators=("ada",),
    teams={"acme/platform": ("grace",)},
    write_by_default=True,
    actions_open_pull_requests=True,
    actions_enabled=False,
    disabled_workflows={".github/workflows/audit.yml": "disabled_inactivity"},
    subject_with_ids=True,
)
VARIABLES = {
    "repository": {"AWS_REGION": "eu-west-1", "MLOPS_TARGET": "laptop"},
    "preview": {"AWS_PREVIEW_ROLE": "arn:p"},
    "images": {"AWS_IMAGES_ROLE": "arn:i"},
    "dev": {"AWS_DEPLOY_ROLE": "arn:d"},
}
KEY = "-----BEGIN RSA PRIVATE KEY-----\nabc\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    source = write(tmp_path / "source", FILES)
    hub = Hub(tmp_path / "home")
    hub.create(source, "acme/mlops", FRESH)
    act_as(hub, monkeypatch, "ada")
    return hub


def act_as(hub: Hub, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    for name, value in hub.environ(login).items():
        monkeypatch.setenv(name, value)


def test_setup_makes_the_settings_and_a_second_time_there_is_nothing_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.register_app("mlops", {"actions": "write", "contents": "write", "pull-requests": "write"})
    gh = Gh(tmp_path / "source", "acme/mlops")
    options = SetupOptions(app="mlops", variables=VARIABLES, key=KEY)
    prepared = prepare_setup(gh, ("dev",), options)
    assert [error for _, error in apply_prepared(gh, prepared, options) if error] == []
    again = prepare_setup(gh, ("dev",), SetupOptions(variables=VARIABLES))
    assert again.is_done
    left = {setting.name: setting.found for setting in judge_repository(gh, ("dev",)) if not setting.ok}
    assert set(left) == {"OIDC subject", "code owners: valid"}, left
    assert left["code owners: valid"] == "line 2: Unknown owner"
    # What GitHub does about them:
    settings = hub.server.settings
    assert settings.protection is not None and settings.protection.bypass == ("mlops",)
    assert settings.environments == {"dev": ("main",), "images": ("main",), "preview": ()}
    assert (settings.actions_enabled, settings.disabled_workflows, settings.write_by_default) == (True, {}, False)
    vault = hub.runner.vault
    assert vault.secrets("dev") == {"APP_PRIVATE_KEY": KEY} and vault.secrets("") == {}
    assert vault.variables("dev")["AWS_DEPLOY_ROLE"] == "arn:d" and vault.variables("")["APP_SLUG"] == "mlops"


def test_a_person_with_write_access_sees_less_and_may_not_set_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(hub, monkeypatch, "grace")
    gh = Gh(tmp_path / "source", "acme/mlops")
    with pytest.raises(MlopsError, match="rights on acme/mlops: expected the role admin, found push"):
        prepare_setup(gh, ("dev",), SetupOptions())
    unseen = {each.name for each in judge_repository(gh, ("dev",)) if each.status == "not visible"}
    assert {"plan", "Actions", "Actions: token"} <= unseen
    monkeypatch.setenv("GH_TOKEN", "nobody")
    with pytest.raises(MlopsError, match="Bad credentials"):
        judge_repository(gh, ("dev",))


def test_rules_of_setup_are_those_that_the_laptop_enforces(hub: Hub, tmp_path: Path) -> None:
    clone = hub.clone(tmp_path / "clone", "ada")
    gh = Gh(tmp_path / "source", "acme/mlops")
    hub.register_app("mlops", {})
    list(apply_prepared(gh, prepare_setup(gh, ("dev",), SetupOptions(app="mlops")), SetupOptions()))
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "x")
    done = subprocess.run(
        ["git", "-C", str(clone), "push", "origin", "main"], capture_output=True, text=True, check=False
    )
    assert "changes must be made through a pull request" in done.stderr
    push(clone, "change", {"README.md": "x\n"})
    number = hub.open("ada", "change", "A change").number
    hub.approve("grace", number)
    push(clone, "other", {"README.md": "y\n"})
    grace = hub.clone(tmp_path / "grace", "grace")
    git(grace, "fetch", "--quiet", "origin", "change")
    git(grace, "switch", "--quiet", "change")
    write(grace, {"more.md": "x\n"})
    git(grace, "add", "--all")
    git(grace, "commit", "--quiet", "--message", "more")
    git(grace, "push", "--quiet", "origin", "change")
    hub.approve("grace", number)
    reasons = hub.blockers(number)
    assert "it lacks the approval of someone other than grace, who pushed last" in reasons
    assert [name for name in ("test", "gates") if any(repr(name) in reason for reason in reasons)] == ["test", "gates"]


def test_everyone_with_write_access_may_change_variables_but_an_app_needs_the_permission(hub: Hub) -> None:
    path, fields = "repos/acme/mlops/actions/variables", {"name": "RUNNER", "value": "mine"}
    for permissions in ({}, {"administration": "write"}, {"variables": "read"}):
        with pytest.raises(RequestDeniedError, match="Resource not accessible by integration"):
            request(hub.server, Actor("x[bot]", "app", permissions), "POST", path, fields)
    with pytest.raises(RequestDeniedError, match="Not Found"):
        request(hub.server, person("stranger"), "POST", path, fields)
    request(hub.server, person("grace"), "POST", path, fields)
    assert hub.runner.vault.variables("")["RUNNER"] == "mine"
    request(hub.server, Actor("x[bot]", "app", {"variables": "write"}), "PATCH", f"{path}/RUNNER", {"value": "other"})
    assert hub.runner.vault.variables("")["RUNNER"] == "other"


def test_actions_that_are_off_start_no_run(hub: Hub, tmp_path: Path) -> None:
    clone = hub.clone(tmp_path / "clone", "ada")
    push(clone, "main", {"README.md": "x\n"})
    assert hub.pump() == []
    gh = Gh(tmp_path / "source", "acme/mlops")
    gh.request("PUT", "repos/acme/mlops/actions/permissions", {"enabled": True})
    push(clone, "main", {"README.md": "y\n"})
    assert [run.workflow for run in hub.pump()] == ["ci"]
    (audit,) = [each for each in gh.get("actions/workflows")["workflows"] if each["name"] == "audit"]
    assert audit["state"] == "disabled_inactivity"
    gh.request("PUT", f"repos/acme/mlops/actions/workflows/{audit['id']}/enable")
    push(clone, "main", {"README.md": "z\n"})
    assert sorted(run.workflow for run in hub.pump()) == ["audit", "ci"]


def test_the_command_works_with_the_laptops_gh(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    (source / "Pulumi.yaml").write_text("name: mlops\nruntime: python\n")
    monkeypatch.chdir(source)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    monkeypatch.setattr("pipelines.declarations.project.Project.environments", ("dev",))
    hub.register_app("mlops", {"actions": "write", "contents": "write", "pull-requests": "write"})
    (source / "key.pem").write_text(KEY)
    (source / "outputs.json").write_text(json.dumps({"variables": VARIABLES, "backend_url": "s3://b"}))
    arguments = ["github", "setup", "--app", "mlops", "--outputs", "outputs.json"]
    assert main(arguments) in (0, None)
    assert "Nothing was changed" in capsys.readouterr().out
    assert main([*arguments, "--app-key", "key.pem", "--apply"]) in (0, None)
    assert "failed" not in capsys.readouterr().out
    assert main(arguments) in (0, None)
    assert "Nothing to do." in capsys.readouterr().out
    assert os.environ["GH_TOKEN"]


def test_a_hosted_repository_has_the_documented_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left has no meaning on the laptop, or is in a file that the sample lacks."""
    hub = Hub(tmp_path / "home")
    source = write(tmp_path / "source", FILES)
    host(hub, source, region="eu-west-1", roles=Roles({"dev": "arn:d"}, "arn:p", "arn:i"))
    act_as(hub, monkeypatch, "ada")
    found = judge_repository(Gh(source, "acme/mlops"), ("dev",))
    left = {setting.name: setting.found for setting in found if not setting.ok}
    assert set(left) == {"labels", "OIDC subject"}, left


def test_bootstrap_sets_up_an_environment_that_is_added_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, applied = Hub(tmp_path / "home"), []
    source = write(tmp_path / "source", {**FILES, "Pulumi.yaml": "name: mlops\nruntime: python\n"})
    host(hub, source, region="eu-west-1", roles=Roles({"dev": "arn:d"}, "arn:p", "arn:i"))
    act_as(hub, monkeypatch, "ada")

    def bootstrap(root: Path, home: Path, repository: str | None) -> Roles:
        applied.append(repository)
        return Roles({"dev": "arn:d", "qa": "arn:q"}, "arn:p", "arn:i")

    monkeypatch.chdir(source)
    monkeypatch.setattr(LaptopTarget, "connect", lambda self: None)
    monkeypatch.setattr("laptop.cli.github.attach", lambda target: hub)
    monkeypatch.setattr(stack_operations, "bootstrap", bootstrap)
    assert main(["laptop", "bootstrap"]) in (0, None)
    assert "GitHub: environment qa, its role, and the key of the app" in capsys.readouterr().out
    found = judge_repository(Gh(source, "acme/mlops"), ("dev", "qa"))
    left = {setting.name: setting.found for setting in found if not setting.ok}
    assert set(left) == {"labels", "OIDC subject"}, left
    assert main(["laptop", "bootstrap"]) in (0, None)
    assert "environment qa" not in capsys.readouterr().out
    assert applied == ["acme/mlops", "acme/mlops"], "each time: an environment may have become disposable"


def test_bootstrap_says_which_role_it_removed_and_what_is_left_on_github(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, before = Hub(tmp_path / "home"), {"dev": "arn:d", "qa": "arn:q"}
    source = write(tmp_path / "source", {**FILES, "Pulumi.yaml": "name: mlops\nruntime: python\n"})
    host(hub, source, region="eu-west-1", roles=Roles(before, "arn:p", "arn:i"))
    act_as(hub, monkeypatch, "ada")
    monkeypatch.chdir(source)
    monkeypatch.setattr(LaptopTarget, "connect", lambda self: None)
    monkeypatch.setattr("laptop.cli.github.attach", lambda target: hub)
    monkeypatch.setattr(stack_operations, "deploy_roles", lambda home: before)
    monkeypatch.setattr(stack_operations, "bootstrap", lambda *_: Roles({"dev": "arn:d"}, "arn:p", "arn:i"))
    assert main(["laptop", "bootstrap"]) in (0, None)
    said, delete = capsys.readouterr().out, "repos/acme/mlops/environments/qa"
    assert "removed: the deploy role of qa, arn:q" in said and "deploy role of dev" not in said
    assert "GitHub: environment qa has no role any more" in said and f"fix: gh api -X DELETE {delete}" in said
    Gh(source, "acme/mlops").request("DELETE", delete)
    assert main(["laptop", "bootstrap"]) in (0, None)
    assert "environment qa" not in capsys.readouterr().out


def test_the_case_of_an_environments_name_does_not_matter(hub: Hub, tmp_path: Path) -> None:
    gh, path = Gh(tmp_path / "source", "acme/mlops"), "repos/acme/mlops/environments"
    assert hub.add_environment("Dev", ("main",)) == "Dev"
    assert hub.add_environment("dev", ("main", "next")) == "Dev"
    set_environment_secret(hub.server, person("ada"), "APP_PRIVATE_KEY", KEY, "DEV")
    gh.request("POST", f"{path}/dev/variables", {"name": "AWS_DEPLOY_ROLE", "value": "arn:d"})
    assert gh.get("environments/dev/deployment-branch-policies")["total_count"] == 2
    gh.request("DELETE", f"{path}/dev/deployment-branch-policies/2")
    custom = {"protected_branches": False, "custom_branch_policies": True}
    gh.request("PUT", f"{path}/dev", {"deployment_branch_policy": custom})
    assert hub.server.settings.environments == {"Dev": ("main",)}
    judged = {setting.name: setting for setting in judge_repository(gh, ("dev",))}
    names = ("environment dev", "secret APP_PRIVATE_KEY: dev", "variable AWS_DEPLOY_ROLE: dev")
    assert [judged[name].found for name in names if not judged[name].ok] == []
    gh.request("DELETE", f"{path}/DEV")
    assert hub.server.settings.environments == {} and hub.secret("APP_PRIVATE_KEY", "Dev") is None


def test_a_deleted_environment_loses_its_secrets_and_variables(hub: Hub, tmp_path: Path) -> None:
    hub.add_environment("qa", ("main",))
    hub.set_secret("APP_PRIVATE_KEY", KEY, "qa")
    hub.set_variable("AWS_DEPLOY_ROLE", "arn:q", "qa")
    with pytest.raises(RequestDeniedError):
        request(hub.server, person("grace"), "DELETE", "repos/acme/mlops/environments/qa", {})
    Gh(tmp_path / "source", "acme/mlops").request("DELETE", "repos/acme/mlops/environments/qa")
    assert "qa" not in hub.server.settings.environments
    assert hub.secret("APP_PRIVATE_KEY", "qa") is None
    assert hub.runner.vault.own("variables", "qa") == {}
