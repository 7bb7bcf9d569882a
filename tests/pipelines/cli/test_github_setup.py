"""The command `mlops github setup`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli.main import main, mlops
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh, GitHubError
from tests.pipelines.github.github_settings_server import FakeGitHub

KEY = "-----BEGIN RSA PRIVATE KEY-----\nabc\n"
STACK = """\
config:
  aws:region: eu-west-1
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGitHub:
    (tmp_path / "Pulumi.yaml").write_text("name: mlops\nruntime: python\n")
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/CODEOWNERS").write_text("* @acme/ml-platform\n/models/ @acme/data-science\n")
    fake = FakeGitHub.create(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Gh, "find", lambda root: fake)
    monkeypatch.setattr("pipelines.declarations.project.Project.environments", ("dev",))
    return fake


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(mlops, ["github", "setup", *arguments], input=stdin)


def test_without_apply_it_shows_what_would_change_and_changes_nothing(server: FakeGitHub) -> None:
    result = run("--app", "example-mlops")
    assert result.exit_code == 0, result.output
    assert server.writes == []
    lines = [line.split() for line in result.output.splitlines()]
    assert ["setting", "now", "then"] in lines
    assert ["main:", "approvals", "0", "1", "or", "more"] in lines
    assert ["environment", "dev", "does", "not", "exist", "main", "only"] in lines
    assert "The team data-science does not exist" in result.output
    assert "Nothing was changed" in result.output
    assert "by hand  app: lacks pull_requests: write" in result.output
    assert "by hand  variable AWS_REGION: repository: not set" in result.output


def test_apply_changes_it_and_a_second_time_there_is_nothing_to_do(server: FakeGitHub) -> None:
    variables = {
        "repository": {"AWS_REGION": "r", "MLOPS_TARGET": "aws"},
        "preview": {"AWS_PREVIEW_ROLE": "p"},
        "images": {"AWS_IMAGES_ROLE": "i"},
        "dev": {"AWS_DEPLOY_ROLE": "d"},
    }
    outputs = json.dumps({"variables": variables, "backend_url": "s3://b"})
    result = run("--app", "example-mlops", "--outputs", "-", "--apply", stdin=outputs)
    assert result.exit_code == 0, result.output
    assert server.state["variables"]["dev"] == {"AWS_DEPLOY_ROLE": "d"}
    assert (server.root / ".github/CODEOWNERS").read_text().startswith("* @example/ml-platform\n")
    assert Project(server.root).backend == "s3://b"
    server.writes.clear()
    again = run("--apply")
    assert again.exit_code == 0 and "Nothing to do." in again.output, again.output
    assert server.writes == []


def test_the_key_is_read_from_standard_input(server: FakeGitHub) -> None:
    result = run("--app", "example-mlops", "--app-key", "-", "--apply", stdin=KEY)
    assert result.exit_code == 0, result.output
    assert server.state["secret values"] == {("dev", "APP_PRIVATE_KEY"): KEY}
    assert "KEY---" not in result.output and "secret APP_PRIVATE_KEY: dev" in result.output


def test_what_is_not_a_key_is_refused(server: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    (server.root / "key.pem").write_text("ssh-rsa AAAA\n")
    assert main(["github", "setup", "--app-key", "key.pem"]) == 1
    assert "--app-key: expected a private key in PEM format" in capsys.readouterr().err


def test_failed_changes_end_in_an_error_that_says_how_to_finish(
    server: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuse["POST repos/example/models/rulesets"] = GitHubError("gh: Upgrade to GitHub Pro (HTTP 403)", 403)
    assert main(["github", "setup", "--app", "example-mlops", "--apply"]) == 1
    output = capsys.readouterr()
    assert "failed  main: pull request" in output.out and "Upgrade to GitHub Pro" in output.out
    assert "1 of 10 changes failed" in output.err and "run the command again" in output.err


@pytest.mark.parametrize("option", ["--owner", "--reviewer"])
@pytest.mark.parametrize("value", ["x", "=x", "x="])
def test_an_option_without_a_name_or_a_value_is_refused(
    server: FakeGitHub, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["github", "setup", option, value]) == 2
    assert f"{option}: expected NAME=VALUE, found '{value}'" in capsys.readouterr().err


def test_an_environment_that_does_not_exist_is_refused(server: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["github", "setup", "--reviewer", "qa=grace"]) == 1
    assert "--reviewer: expected one of dev, found 'qa'" in capsys.readouterr().err
