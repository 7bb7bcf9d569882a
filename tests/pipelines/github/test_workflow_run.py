"""What a workflow run says of its server, and what it gives to later steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.workflow_run import add_path, refuse_enterprise_server, set_output, set_variable


@pytest.mark.parametrize(
    "server",
    ["https://github.com", "https://octocorp.ghe.com", "https://github.localhost", "http://localhost:8080", ""],
)
def test_workflows_run_on_github(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", server)
    refuse_enterprise_server()


@pytest.mark.parametrize(
    "server",
    ["https://github.example.org", "https://github.com.example.org", "https://ghe.com", "https://notgithub.com"],
)
def test_enterprise_server_is_refused_by_name(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", server)
    with pytest.raises(MlopsError, match="GitHub Enterprise Server is not supported") as caught:
        refuse_enterprise_server()
    assert server in caught.value.what


def test_later_steps_get_variables_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ENV", "GITHUB_PATH"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    set_variable("AWS_REGION", "eu-west-1")
    add_path(tmp_path)
    assert os.environ["AWS_REGION"] == "eu-west-1"
    assert (tmp_path / "GITHUB_ENV").read_text() == "AWS_REGION=eu-west-1\n"
    assert (tmp_path / "GITHUB_PATH").read_text() == f"{tmp_path}\n"
    assert os.environ["PATH"] == f"{tmp_path}{os.pathsep}/bin"
    monkeypatch.delenv("GITHUB_ENV")
    monkeypatch.delenv("GITHUB_PATH")
    set_variable("AWS_REGION", "us-east-1")
    add_path(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("text", ["a\njudged=false", "a\rjudged=false", "a\r\njudged=false\n"])
def test_no_value_sets_another_output(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    before = os.environ["PATH"]
    calls: list[Callable[[], object]] = [
        lambda: set_output("tests", text),
        lambda: set_variable("AWS_REGION", text),
        lambda: add_path(tmp_path / text),
    ]
    for call in calls:
        with pytest.raises(MlopsError, match="expected one line, found"):
            call()
    assert not (tmp_path / "file").exists()
    assert (os.environ["PATH"], os.environ["AWS_REGION"]) == (before, "us-west-2")
