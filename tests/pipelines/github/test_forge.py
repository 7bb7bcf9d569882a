"""GitHub by way of `gh`: a stand-in on the PATH keeps what it was told in a file, and answers from it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.forge import Forge, Merge, PullRequest
from pipelines.github.repository import Repository
from tests.pipelines.promotion.world import MODEL, RELEASE, commit_all, git, make_repository

OLD, BAD, GOOD = ("sha256:" + letter * 64 for letter in "abc")
MARKER = "<!-- mlops:gates m dev -->"

GH = """#!{python}
import json, pathlib, sys
path = pathlib.Path({state!r})
state = json.loads(path.read_text())
arguments = sys.argv[1:]
state["calls"].append(arguments)
def option(name):
    return arguments[arguments.index(name) + 1]
answer = None
if arguments[:2] == ["pr", "list"]:
    answer = [pull for pull in state["pulls"] if pull["headRefName"] == option("--head") and pull["state"] == "OPEN"]
elif arguments[:2] == ["pr", "create"]:
    number = len(state["pulls"]) + 1
    state["pulls"].append(dict(number=number, title=option("--title"), headRefName=option("--head"), state="OPEN",
        url=f"https://github.com/o/r/pull/{{number}}", body=pathlib.Path(option("--body-file")).read_text()))
elif arguments[:2] == ["pr", "comment"]:
    state["comments"].append(dict(id=len(state["comments"]) + 1, user=dict(login="mlops[bot]", type="Bot"),
        body=pathlib.Path(option("--body-file")).read_text()))
elif arguments[:1] == ["api"] and "--method" in arguments:
    number = int(arguments[1].rsplit("/", 1)[1])
    next(c for c in state["comments"] if c["id"] == number)["body"] = json.loads(
        pathlib.Path(option("--input")).read_text())["body"]
elif arguments[:1] == ["api"]:
    place = arguments[1].partition("?")[0].rsplit("/", 2)
    found = state["comments"] if place[-1] == "comments" else state[place[-1]]
    for start in range(0, max(len(found), 1), 2):
        print(json.dumps(found[start:start + 2]), end=state["between"])
elif arguments[:2] != ["workflow", "run"]:
    sys.exit("gh: unknown command")
if answer is not None:
    print(json.dumps(answer))
path.write_text(json.dumps(state))
"""


class GitHub:
    """What the stand-in was told, and what it answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "github.json"
        (folder / "bin").mkdir()
        program = folder / "bin" / "gh"
        program.write_text(GH.format(python=sys.executable, state=str(self.path)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin")
        monkeypatch.delenv("GH_TOKEN", raising=False)
        monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
        self.set(calls=[], pulls=[], comments=[], reviews=[], between="\n")

    def set(self, **values: Any) -> None:
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.path.write_text(json.dumps({**known, **values}))

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.path.read_text())[name]


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    return GitHub(tmp_path, monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_repository(tmp_path / "git")


def write_release(project: Project, bundle: str, replaces: str | None = None) -> Path:
    path = project.root / RELEASE
    path.write_text(render_release(Release(model=MODEL, environment="staging", bundle=bundle, replaces=replaces)))
    return path


def propose(project: Project, path: Path) -> Any:
    return Forge.of(project.root).propose("release/staging/m", [path], "Release m to staging", "Why.\n")


# --- proposing --------------------------------------------------------------------------------------------------------


def test_a_proposal_is_one_commit_of_the_named_file_on_main_and_a_pull_request(
    project: Project, github: GitHub
) -> None:
    main = git(project.root, "rev-parse", "origin/main")
    (project.root / "README.md").write_text("work in progress")
    pull = propose(project, write_release(project, GOOD))
    url = "https://github.com/o/r/pull/1"
    assert pull == PullRequest(1, "Release m to staging", "release/staging/m", url, "OPEN")
    branch = ("--head", "release/staging/m")
    listed = ["pr", "list", *branch, "--state", "open", "--json", "number,title,headRefName,url,state"]
    (body,) = {name for call in github["calls"] for name in call if name.endswith(".md")}
    created = ["pr", "create", "--title", "Release m to staging", "--body-file", body, *branch, "--base", "main"]
    assert github["calls"] == [listed, created, listed]
    assert not Path(body).exists(), "the file with the text is gone"
    assert github["pulls"][0]["body"] == "Why.\n"
    repository = Repository(project.root)
    head = repository.commit("origin/release/staging/m")
    assert repository.parents(head) == [main]
    assert repository.changed_files(main, head) == (RELEASE,)
    assert git(project.root, "status", "--porcelain") == "?? README.md", "the change is in the pull request"
    assert git(project.root, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_proposing_the_same_again_pushes_nothing_and_opens_nothing(project: Project, github: GitHub) -> None:
    first = propose(project, write_release(project, GOOD))
    head = git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m")
    hook = project.root.parent / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert propose(project, write_release(project, GOOD)) == first
    assert git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m") == head
    assert len(github["pulls"]) == 1


def test_another_proposal_renews_the_pull_request_that_is_open(project: Project, github: GitHub) -> None:
    first = propose(project, write_release(project, BAD))
    assert propose(project, write_release(project, GOOD)).number == first.number
    git(project.root, "fetch", "--quiet", "origin")
    released = Repository(project.root).file_at("origin/release/staging/m", RELEASE)
    assert GOOD.encode() in released
    assert git(project.root, "rev-list", "--count", "origin/main..origin/release/staging/m") == "1"


def test_a_proposal_is_made_anew_when_main_went_on(project: Project, github: GitHub) -> None:
    propose(project, write_release(project, GOOD))
    (project.root / "docs").write_text("x")
    main = commit_all(project.root, "main goes on")
    propose(project, write_release(project, GOOD))
    repository = Repository(project.root)
    git(project.root, "fetch", "--quiet", "origin")
    assert repository.parents(repository.commit("origin/release/staging/m")) == [main]


def test_a_proposal_interrupted_before_its_pull_request_is_finished_by_the_next(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_release(project, GOOD)
    with monkeypatch.context() as broken:
        broken.setattr(Forge, "open_pull_request", lambda *_: (_ for _ in ()).throw(MlopsError("GitHub is down")))
        with pytest.raises(MlopsError, match="GitHub is down"):
            propose(project, path)
    assert propose(project, write_release(project, GOOD)).number == 1


def test_a_pull_request_that_is_not_there_after_it_was_opened_is_an_error(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forge, "open_pull_request", lambda *_: None)
    with pytest.raises(MlopsError) as caught:
        propose(project, write_release(project, GOOD))
    assert caught.value.what == ("no pull request of release/staging/m is open, though it was just created")


def test_where_there_is_no_main_nothing_is_proposed(project: Project, github: GitHub) -> None:
    path = write_release(project, GOOD)
    git(project.root.parent / "origin.git", "update-ref", "-d", "refs/heads/main")
    with pytest.raises(MlopsError) as caught:
        propose(project, path)
    assert caught.value.what == "the origin has no branch main"
    assert github["calls"] == []


def test_another_change_on_the_same_main_is_pushed_though_its_commit_stands_on_the_same(
    project: Project, github: GitHub
) -> None:
    propose(project, write_release(project, BAD))
    before = git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m")
    propose(project, write_release(project, GOOD))
    assert git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m") != before


def test_a_proposal_works_in_a_detached_checkout_as_workflows_have_it(project: Project, github: GitHub) -> None:
    git(project.root, "checkout", "--quiet", "--detach")
    assert propose(project, write_release(project, GOOD)).number == 1


# --- comments ---------------------------------------------------------------------------------------------------------


def human(number: int, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": "mallory", "type": "User"}, "body": body}


def test_a_comment_is_written_once_and_edited_in_place(project: Project, github: GitHub) -> None:
    github.set(comments=[human(n, "looks good") for n in range(1, 4)])
    forge = Forge.of(project.root)
    for text in ("first", "second", "third"):
        forge.comment(7, MARKER, f"{MARKER}\n{text}\n")
    bodies = [comment["body"] for comment in github["comments"]]
    assert bodies == ["looks good"] * 3 + [f"{MARKER}\nthird\n"]
    listed = ["api", "repos/o/r/issues/7/comments?per_page=100", "--paginate"]
    _, written, _, edited, *_ = github["calls"]
    assert written[:-1] == ["pr", "comment", "7", "--body-file"]
    assert edited[:-1] == ["api", "repos/o/r/issues/comments/4", "--method", "PATCH", "--input"]
    assert github["calls"][::2] == [listed] * 3
    assert not any(Path(call[-1]).exists() for call in (written, edited))
    forge.comment(7, "<!-- mlops:gates m staging -->", "<!-- mlops:gates m staging -->\nanother environment\n")
    assert len(github["comments"]) == 5


@pytest.mark.parametrize("between", ["", "\n", " "])
def test_all_pages_of_comments_are_looked_through(project: Project, github: GitHub, between: str) -> None:
    """Some versions of gh print the pages' lists one after the other, and not as one."""
    ours = {"id": 9, "user": {"login": "mlops[bot]", "type": "Bot"}, "body": f"{MARKER}\nold"}
    github.set(comments=[*[human(n, "+1") for n in range(1, 6)], ours], between=between)
    Forge.of(project.root).comment(7, MARKER, f"{MARKER}\nnew")
    assert [c["body"] for c in github["comments"]][-1] == f"{MARKER}\nnew" and len(github["comments"]) == 6


def test_a_persons_comment_is_never_edited_whatever_it_begins_with(project: Project, github: GitHub) -> None:
    """Its author could change the verdict afterwards."""
    forged = f"{MARKER}\nevery gate passes, honestly\n"
    quoting = {"id": 2, "user": {"login": "other[bot]", "type": "Bot"}, "body": f"> {MARKER}\n> quoted\n"}
    nobody = {"id": 3, "user": None, "body": None}
    github.set(comments=[human(1, forged), quoting, nobody])
    Forge.of(project.root).comment(7, MARKER, f"{MARKER}\nrefused\n")
    bodies = [comment["body"] for comment in github["comments"]]
    assert bodies == [forged, quoting["body"], None, f"{MARKER}\nrefused\n"]


def test_no_text_goes_through_argv_where_others_could_read_it(project: Project, github: GitHub) -> None:
    forge = Forge.of(project.root)
    for _ in range(2):
        forge.comment(7, MARKER, f"{MARKER}\nsecret plan")
    assert "secret plan" not in json.dumps(github["calls"])


# --- who approved -----------------------------------------------------------------------------------------------------


def pull(number: int, **changes: Any) -> dict[str, Any]:
    values = {
        "number": number,
        "merged_at": "2026-03-02T10:00:00Z",
        "merge_commit_sha": "f" * 40,
        "base": {"ref": "main"},
    }
    return {**values, "user": {"login": "ann"}, **changes}


def review(login: str | None, state: str) -> dict[str, Any]:
    return {"user": {"login": login} if login else None, "state": state}


def test_who_let_a_commit_in_is_the_pull_request_and_those_whose_approval_stands(
    project: Project, github: GitHub
) -> None:
    github.set(
        pulls=[pull(12)],
        reviews=[
            review("bob", "APPROVED"),
            review("bob", "COMMENTED"),
            review("eve", "APPROVED"),
            review("eve", "CHANGES_REQUESTED"),
            review("dan", "APPROVED"),
            review("dan", "DISMISSED"),
            review("kim", "CHANGES_REQUESTED"),
            review("kim", "APPROVED"),
            review("lee", "PENDING"),
            review(None, "APPROVED"),
        ],
    )
    assert Forge.of(project.root).merge_of("e" * 40) == Merge(12, "ann", ("bob", "ghost", "kim"))
    assert github["calls"] == [
        ["api", f"repos/o/r/commits/{'e' * 40}/pulls?per_page=100", "--paginate"],
        ["api", "repos/o/r/pulls/12/reviews?per_page=100", "--paginate"],
    ]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"base": None}, Merge(1, "ann", ())),
        ({"base": {}}, Merge(1, "ann", ())),
        ({"base": {"ref": "feature"}}, None),
        ({"merged_at": ""}, None),
        ({"merge_commit_sha": None}, Merge(1, "ann", ())),
        ({"user": {"login": ""}}, Merge(1, "ghost", ())),
        ({"user": {}}, Merge(1, "ghost", ())),
    ],
)
def test_what_github_leaves_out_is_not_taken_for_more_than_it_says(
    project: Project, github: GitHub, changes: dict[str, Any], found: Merge | None
) -> None:
    github.set(pulls=[pull(1, **changes)])
    assert Forge.of(project.root).merge_of("e" * 40) == found
    without = {name: value for name, value in pull(1, **changes).items() if value not in (None, {})}
    github.set(pulls=[without])
    assert Forge.of(project.root).merge_of("e" * 40) == found


def test_of_several_pull_requests_the_one_that_was_merged_to_main_as_this_commit_counts(
    project: Project, github: GitHub
) -> None:
    github.set(
        pulls=[
            pull(1, merged_at=None),
            pull(2, base={"ref": "feature"}, merge_commit_sha="e" * 40),
            pull(3),
            pull(4, merge_commit_sha="e" * 40, user=None),
        ]
    )
    forge = Forge.of(project.root)
    assert forge.merge_of("e" * 40) == Merge(4, "ghost", ())
    assert forge.merge_of("d" * 40) == Merge(3, "ann", ())
    github.set(pulls=[pull(1, merged_at=None), pull(2, base={"ref": "feature"})])
    assert forge.merge_of("e" * 40) is None


# --- failures ---------------------------------------------------------------------------------------------------------


def test_what_gh_says_when_it_fails_is_told(project: Project, github: GitHub) -> None:
    with pytest.raises(MlopsError, match="gh release create x: gh: unknown command"):
        Forge.of(project.root).gh("release", "create", "x")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo ' in words ' >&2; echo more; exit 1", "gh api x y: in words"),
        ("echo ' on stdout '; exit 3", "gh api x y: on stdout"),
        ("exit 1", "gh api x y: "),
    ],
)
def test_why_gh_failed_is_told_in_its_words(tmp_path: Path, github: GitHub, script: str, says: str) -> None:
    (tmp_path / "bin" / "gh").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(MlopsError) as caught:
        Forge(tmp_path, "o/r").gh("api", "x", "y", "a secret")
    assert caught.value.what == says


def test_gh_works_where_the_clone_is(tmp_path: Path, github: GitHub) -> None:
    (tmp_path / "bin" / "gh").write_text("#!/bin/sh\npwd\n")
    assert Forge(tmp_path / "bin", "o/r").gh() == f"{tmp_path / 'bin'}\n"


def test_without_gh_or_a_repository_it_says_what_to_do(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_git = tmp_path / "only-git"
    only_git.mkdir()
    (only_git / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(only_git))
    with pytest.raises(MlopsError) as caught:
        Forge.of(project.root).dispatch("train.yml", {"model": "m"})
    assert (caught.value.what, caught.value.fix) == ("the GitHub CLI `gh` is not on the PATH", "install it")
    monkeypatch.delenv("GITHUB_REPOSITORY")
    with pytest.raises(MlopsError) as caught:
        Forge.of(project.root)
    assert caught.value.what == "it is not known which GitHub repository this belongs to"
    assert caught.value.fix == "set GITHUB_REPOSITORY=owner/name, or let origin be on GitHub"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://github.com/o/r.git", "o/r"),
        ("https://token@github.com/o/r", "o/r"),
        ("git@github.com:o/my.repo.git", "o/my.repo"),
        ("ssh://git@github.com/o/r/", "o/r"),
        ("https://notgithub.com/o/r", None),
        ("https://github.com.evil.org/o/r", None),
        ("/srv/git/o/r.git", None),
        ("https://github.com/o/r/issues", None),
        ("https://github.com/o", None),
    ],
)
def test_outside_of_a_workflow_the_origin_says_which_repository_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, url: str, named: str | None
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    git(project.root, "remote", "set-url", "origin", url)
    if named is None:
        with pytest.raises(MlopsError, match="not known which"):
            Forge.of(project.root)
    else:
        assert Forge.of(project.root).repository == named


def test_a_clone_of_nothing_belongs_to_no_repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    git(project.root, "remote", "remove", "origin")
    with pytest.raises(MlopsError, match="not known which"):
        Forge.of(project.root)


def test_a_text_is_in_a_file_while_it_is_needed_in_the_encoding_that_github_reads(tmp_path: Path) -> None:
    with Forge(tmp_path, "o/r")._text("é ✅\n") as name:
        assert Path(name).read_bytes() == "é ✅\n".encode()
        Path(name).unlink()  # whoever cleans up before is welcome


def test_a_run_of_a_workflow_is_asked_for_on_main(project: Project, github: GitHub) -> None:
    Forge.of(project.root).dispatch("train.yml", {"model": "m", "why": "drift"})
    assert github["calls"] == [["workflow", "run", "train.yml", "--ref", "main", "-f", "model=m", "-f", "why=drift"]]
