"""Commits that are published: signed by GitHub for an app, pushed for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh, GitHubError
from pipelines.github.git import Git
from pipelines.github.published_commits import publish
from tests.clones import git


class GitApi:
    """GitHub's API of git over a bare origin.

    Attributes:
        requests: method and path of each request.
        body: of the last request that created a commit.
    """

    def __init__(self, clone: Path) -> None:
        self.origin = Path(git(clone, "config", "remote.origin.url"))
        self.requests: list[str] = []
        self.body: dict[str, Any] = {}
        self.spoil = False

    def __call__(self, gh: Gh, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        assert body is not None
        below = path.removeprefix("repos/o/r/git/")
        self.requests.append(f"{method} {below}")
        if below == "trees":
            files = {each["path"]: each["content"].encode() for each in body["tree"]}
            parent = git(self.origin, "commit-tree", body["base_tree"], "-m", "x")
            made = Git(self.origin).commit_files(parent, files | ({"more": b""} if self.spoil else {}), "x")
            return {"sha": Git(self.origin).tree(made)}
        if below == "commits":
            self.body = dict(body)
            parents = [part for parent in body["parents"] for part in ("-p", parent)]
            return {"sha": git(self.origin, "commit-tree", body["tree"], *parents, "-m", body["message"])}
        ref = body["ref"] if below == "refs" else f"refs/{below.removeprefix('refs/')}"
        present = git(self.origin, "for-each-ref", "--format=%(objectname)", ref)
        if (below == "refs") == bool(present):
            raise GitHubError("gh: Reference exists or not (HTTP 422)", 422)
        if present and not body["force"] and present not in git(self.origin, "rev-list", body["sha"]).split():
            raise GitHubError("gh: Update is not a fast forward (HTTP 422)", 422)
        git(self.origin, "update-ref", ref, body["sha"])
        return {"ref": ref}


@pytest.fixture
def api(clone: Path, monkeypatch: pytest.MonkeyPatch) -> GitApi:
    found = GitApi(clone)
    monkeypatch.setattr(Gh, "request", lambda *arguments: found(*arguments))
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
    monkeypatch.setenv("GH_TOKEN", "ghs_abc")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    return found


def test_a_person_pushes(clone: Path, api: GitApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "ghp_abc", "gho_abc"):
        monkeypatch.setenv("GH_TOKEN", token)
        commit = publish(clone, "HEAD", {"x": token.encode()}, "Change x", "topic", force=True)
        assert Git(clone).fetch("topic") == commit
    assert api.requests == []


def test_an_app_commits_through_the_api(clone: Path, api: GitApi) -> None:
    repository = Git(clone)
    base = repository.head()
    commit = publish(clone, base, {"a/x": "é\n".encode(), "y": b"2"}, "Change x\n\nBecause.\n", "topic")
    assert api.requests == ["POST trees", "POST commits", "POST refs"]
    assert repository.fetch("topic") == commit
    assert repository.parents(commit) == [base]
    assert repository.changed_files(base, commit) == ("a/x", "y")
    assert repository.read_file(commit, "a/x") == "é\n".encode()
    assert set(api.body) == {"message", "tree", "parents"}, "an author of its own would leave the commit unsigned"
    assert api.body["message"] == "Change x\n\nBecause.\n"


def test_a_branch_that_exists_is_moved(clone: Path, api: GitApi) -> None:
    base = Git(clone).head()
    publish(clone, base, {"x": b"1"}, "one", "topic")
    with pytest.raises(MlopsError, match="not a fast forward"):
        publish(clone, base, {"x": b"2"}, "two", "topic")
    commit = publish(clone, base, {"x": b"2"}, "two", "topic", force=True)
    assert api.requests[-1] == "PATCH refs/heads/topic"
    assert Git(clone).fetch("topic") == commit


def test_a_tree_other_than_the_proposed_one_is_refused(clone: Path, api: GitApi) -> None:
    api.spoil = True
    with pytest.raises(MlopsError, match="the tree that GitHub made of x: expected"):
        publish(clone, Git(clone).head(), {"x": b"1"}, "one", "topic")
    assert Git(clone).fetch("topic") is None


def test_a_file_that_is_no_text_is_refused(clone: Path, api: GitApi) -> None:
    with pytest.raises(MlopsError, match="x: expected UTF-8 text, found other bytes"):
        publish(clone, Git(clone).head(), {"x": b"\xff"}, "one", "topic")
    assert api.requests == []
