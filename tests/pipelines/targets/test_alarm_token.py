"""The token for alarms is checked, set in EventBridge, and never shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto.events.models import events_backends

from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.targets.alarm_token import describe_delivery, set_alarm_token
from tests.aws import ACCOUNT, REGION, EmulatedAccount
from tests.infra.recording import edit
from tests.sample_project import copy_as_forked

TOKEN = "github_pat_abc"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = copy_as_forked(tmp_path / "project")
    github = {"github": {"repository": "acme/mlops"}}
    for name in ("dev", "staging"):
        edit(root / f"Pulumi.{name}.yaml", "config", "mlops:environment", "monitoring", value=github)
    return Project(root)


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What GitHub says of the token."""
    said: dict[str, Any] = {"permissions": {"push": True}}

    def request(self: Gh, method: str, path: str, body: Any = None) -> Any:
        assert (self.token, method, path) == (TOKEN, "GET", "repos/acme/mlops")
        return said

    monkeypatch.setattr(Gh, "request", request)
    return said


def connect() -> None:
    parameters = {"ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": "not set"}}
    boto3.client("events").create_connection(
        Name="mlops-dev-github", AuthorizationType="API_KEY", AuthParameters=parameters
    )


@pytest.mark.slow
def test_the_token_is_set_in_the_connection(account: EmulatedAccount, project: Project, push: Any) -> None:
    connect()
    set_alarm_token(project, "dev", f"{TOKEN}\n")
    held = events_backends[ACCOUNT][REGION].connections["mlops-dev-github"].auth_parameters
    assert held["ApiKeyAuthParameters"] == {"ApiKeyName": "Authorization", "ApiKeyValue": f"Bearer {TOKEN}"}


@pytest.mark.slow
def test_an_environment_that_is_not_up_has_no_connection(account: EmulatedAccount, project: Project, push: Any) -> None:
    with pytest.raises(MlopsError, match="has no connection to GitHub yet"):
        set_alarm_token(project, "staging", TOKEN)


def test_a_token_without_write_access_is_refused(project: Project, push: dict[str, Any]) -> None:
    push["permissions"] = {"push": False}
    with pytest.raises(MlopsError, match="may not send events to acme/mlops"):
        set_alarm_token(project, "dev", TOKEN)


@pytest.mark.parametrize("text", ["", " \n", "a b", "a\nb"])
def test_what_is_not_a_token_is_refused_without_being_shown(project: Project, text: str) -> None:
    with pytest.raises(MlopsError) as caught:
        set_alarm_token(project, "dev", text)
    assert caught.value.what == "the token: expected one word, found none or several"


def test_an_environment_that_delivers_nothing_takes_no_token(project: Project) -> None:
    with pytest.raises(MlopsError, match=r"monitoring\.github is not set"):
        set_alarm_token(project, "prod", TOKEN)


def test_the_command_reads_the_token_from_standard_input(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("pipelines.targets.aws.AwsTarget.connect_account", lambda _: None)
    monkeypatch.setattr("pipelines.targets.alarm_token.set_alarm_token", lambda *values: given.extend(values[1:]))
    done = CliRunner().invoke(mlops, ["github", "alarm-token", "--env", "dev", "--target", "aws"], input=TOKEN)
    assert (done.exit_code, given) == (0, ["dev", TOKEN]), done.output
    assert TOKEN not in done.output


@pytest.mark.parametrize(
    ("changes", "ok", "words"),
    [
        ({"LastModifiedTime": NOW}, False, "the token is not set"),
        ({"LastModifiedTime": NOW + timedelta(days=1)}, True, "mlops-dev-github"),
        ({"ConnectionState": "DEAUTHORIZED", "LastModifiedTime": NOW + timedelta(days=1)}, False, "is DEAUTHORIZED"),
    ],
)
def test_the_state_of_a_connection_says_whether_it_delivers(changes: dict[str, Any], ok: bool, words: str) -> None:
    found = {"Name": "mlops-dev-github", "ConnectionState": "AUTHORIZED", "CreationTime": NOW, **changes}
    delivers, said = describe_delivery(found)
    assert delivers is ok
    assert words in said
