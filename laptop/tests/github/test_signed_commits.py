"""Rules that require signed commits: commits that an app creates through the API pass, pushed ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from laptop.github.hub import Hub
from laptop.tests.github.sample_repository import PEOPLE, git, hub_with, write
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.pull_requests import propose

WRITE = {"contents": "write", "pull-requests": "write"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = hub_with(tmp_path, {"README.md": "x\n"}, replace(PEOPLE, signed_commits=True))
    app = hub.register_app("mlops", WRITE)
    for name, value in hub.environ("maria").items():
        monkeypatch.setenv(name, value)
    actor = hub.server.app_actor(app.client_id, app.private_key)
    monkeypatch.setenv("GH_TOKEN", hub.server.issue_token(actor))
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    return hub


def test_a_release_branch_of_the_app_passes(hub: Hub, tmp_path: Path) -> None:
    clone = hub.clone(tmp_path / "clone", "maria")
    gh = Gh(clone, "acme/mlops")
    for text in ("1\n", "2\n"):
        write(clone, {"release.yaml": text})
        pull = propose(gh, "release/dev/m", [clone / "release.yaml"], "Release m", "Body")
        head = hub.pull_request(pull.number).head_sha
        assert hub.server.repository.read_file(head, "release.yaml") == text.encode()
    assert [each.number for each in hub.pull_requests()] == [pull.number]
    assert hub.pull_request(pull.number).author == "mlops[bot]"


def test_a_pushed_commit_is_refused(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = hub.clone(tmp_path / "clone", "maria")
    monkeypatch.setenv("GH_TOKEN", hub.environ("maria")["GH_TOKEN"])
    write(clone, {"release.yaml": "1\n"})
    with pytest.raises(MlopsError, match="Commits must have verified signatures"):
        propose(Gh(clone, "acme/mlops"), "release/dev/m", [clone / "release.yaml"], "Release m", "Body")
    git(clone, "push", "--quiet", "origin", "main:refs/heads/same")  # no new commit
