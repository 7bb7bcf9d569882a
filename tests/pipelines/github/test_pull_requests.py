"""Pull requests, tested with a fake `gh` on the PATH that keeps its calls and its state in a file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github import pull_requests
from pipelines.github.gh import Gh, text_file
from pipelines.github.git import Git
from pipelines.github.pull_requests import Merge, PullRequest, comment, find_merge
from pipelines.promotion.images import pin_images
from pipelines.promotion.propose import propose_images
from tests.clones import commit_all, git, make_repository
from tests.pipelines.promotion.promotion_project import RELEASE, write_release

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
    answer = [dict(dict(isCrossRepository=False), **pull) for pull in answer]
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


class FakeGitHub:
    """The calls and the state of the fake `gh`."""

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
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGitHub:
    return FakeGitHub(tmp_path, monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_repository(tmp_path / "git")


def propose(project: Project, path: Path) -> Any:
    return pull_requests.propose(Gh.find(project.root), "release/staging/m", [path], "Release m to staging", "Why.\n")


# --- proposing --------------------------------------------------------------------------------------------------------


def test_a_proposal_is_one_commit_on_main_and_a_pull_request(project: Project, github: FakeGitHub) -> None:
    main = git(project.root, "rev-parse", "origin/main")
    (project.root / "README.md").write_text("work in progress")
    pull = propose(project, write_release(project, GOOD))
    url = "https://github.com/o/r/pull/1"
    assert pull == PullRequest(1, "Release m to staging", "release/staging/m", url, "OPEN")
    branch = ("--head", "release/staging/m")
    listed = ["pr", "list", *branch, "--state", "open", "--limit", "1000"]
    listed += ["--json", "number,title,headRefName,url,state,isCrossRepository"]
    (body,) = {name for call in github["calls"] for name in call if name.endswith(".md")}
    created = ["pr", "create", "--title", "Release m to staging", "--body-file", body, *branch, "--base", "main"]
    assert github["calls"] == [listed, created, listed]
    assert not Path(body).exists(), "the temporary file is deleted"
    assert github["pulls"][0]["body"] == "Why.\n"
    repository = Git(project.root)
    head = repository.resolve("origin/release/staging/m")
    assert repository.parents(head) == [main]
    assert repository.changed_files(main, head) == (RELEASE,)
    assert git(project.root, "status", "--porcelain") == "?? README.md", "the change is only in the pull request"
    assert git(project.root, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_an_unchanged_proposal_is_not_pushed_again(project: Project, github: FakeGitHub) -> None:
    first = propose(project, write_release(project, GOOD))
    head = git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m")
    hook = project.root.parent / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert propose(project, write_release(project, GOOD)) == first
    assert git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m") == head
    assert len(github["pulls"]) == 1


def test_another_proposal_updates_the_open_pull_request(project: Project, github: FakeGitHub) -> None:
    first = propose(project, write_release(project, BAD))
    assert propose(project, write_release(project, GOOD)).number == first.number
    git(project.root, "fetch", "--quiet", "origin")
    released = Git(project.root).read_file("origin/release/staging/m", RELEASE)
    assert GOOD.encode() in released
    assert git(project.root, "rev-list", "--count", "origin/main..origin/release/staging/m") == "1"


def test_a_proposal_keeps_its_approvals_when_main_moved_elsewhere(project: Project, github: FakeGitHub) -> None:
    propose(project, write_release(project, GOOD))
    before = git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m")
    (project.root / "docs").write_text("x")
    commit_all(project.root, "a later commit")
    propose(project, write_release(project, GOOD))
    assert git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m") == before


def test_a_proposal_works_in_a_shallow_clone_when_the_branch_of_a_merged_one_is_left(
    project: Project, github: FakeGitHub, tmp_path: Path
) -> None:
    """Its branch may outlive a merge, and a shallow clone does not know where it branched off."""
    propose(project, write_release(project, BAD))
    git(project.root, "checkout", "--quiet", "--", ".")
    write_release(project, BAD)
    (project.root / "later").write_text("x")
    main = commit_all(project.root, "the merge")
    origin = git(project.root, "config", "--get", "remote.origin.url")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{Path(origin).resolve()}", str(shallow))
    propose(Project(shallow), write_release(Project(shallow), GOOD, replaces=BAD))
    git(project.root, "fetch", "--quiet", "origin")
    assert Git(project.root).parents("origin/release/staging/m") == [main]


def test_a_proposal_is_made_again_when_main_changed_its_file(project: Project, github: FakeGitHub) -> None:
    propose(project, write_release(project, GOOD))
    write_release(project, BAD)
    main = commit_all(project.root, "another release")
    propose(project, write_release(project, GOOD))
    repository = Git(project.root)
    git(project.root, "fetch", "--quiet", "origin")
    assert repository.parents(repository.resolve("origin/release/staging/m")) == [main]


def test_a_branch_with_commits_of_others_is_made_again(project: Project, github: FakeGitHub) -> None:
    propose(project, write_release(project, GOOD))
    git(project.root, "fetch", "--quiet", "origin")
    git(project.root, "checkout", "--quiet", "origin/release/staging/m")
    (project.root / "more").write_text("x")
    git(project.root, "add", "more")
    git(project.root, "commit", "--quiet", "--message", "more")
    git(project.root, "push", "--quiet", "origin", "HEAD:refs/heads/release/staging/m")
    git(project.root, "checkout", "--quiet", "main")
    propose(project, write_release(project, GOOD))
    git(project.root, "fetch", "--quiet", "origin")
    assert git(project.root, "rev-list", "--count", "origin/main..origin/release/staging/m") == "1"


def test_a_proposal_interrupted_after_its_push_can_be_repeated(
    project: Project, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_release(project, GOOD)
    with monkeypatch.context() as broken:
        broken.setattr(pull_requests, "find_open", lambda *_: (_ for _ in ()).throw(MlopsError("GitHub is down")))
        with pytest.raises(MlopsError, match="GitHub is down"):
            propose(project, path)
    assert propose(project, write_release(project, GOOD)).number == 1


def test_images_are_pinned_in_the_file_that_main_has_now(project: Project, github: FakeGitHub) -> None:
    file, serving, training = project.stack_file("staging"), f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    checkout = git(project.root, "rev-parse", "HEAD")
    file.write_text(file.read_text().replace("retention_days:", "retention_days: 4 #"))
    commit_all(project.root, "keep for longer")
    git(project.root, "reset", "--quiet", "--hard", checkout)

    propose_images(project, Images(serving=serving, training=training), "staging", "Built.", lambda line: None)
    proposed = git(project.root, "show", f"origin/pin/staging:{file.name}")
    assert "retention_days: 4" in proposed
    assert serving in proposed


def test_images_that_main_pins_meanwhile_are_not_proposed(project: Project, github: FakeGitHub) -> None:
    images, checkout = Images(serving=f"sha256:{'a' * 64}"), git(project.root, "rev-parse", "HEAD")
    pin_images(project, "staging", images)
    commit_all(project.root, "pin")
    git(project.root, "reset", "--quiet", "--hard", checkout)
    said: list[str] = []
    propose_images(project, images, "staging", "Built.", said.append)
    assert said == ["staging pins these images already; there is nothing to propose"]
    assert github["calls"] == []
    assert git(project.root, "status", "--porcelain", "-uall") == ""


def test_a_fork_with_a_branch_of_the_same_name_is_not_taken_for_the_own_one(
    project: Project, github: FakeGitHub
) -> None:
    url = "https://github.com/o/r/pull/1"
    theirs = {"number": 1, "title": "t", "headRefName": "release/staging/m", "url": url, "state": "OPEN"}
    github.set(pulls=[{**theirs, "isCrossRepository": True}])
    assert propose(project, write_release(project, GOOD)).number == 2
    assert propose(project, write_release(project, GOOD)).number == 2, "it is found again"


@pytest.mark.parametrize("broken", ["refs/heads/main", "gh"])
def test_a_proposal_that_fails_leaves_nothing_in_the_working_tree(
    project: Project, github: FakeGitHub, tmp_path: Path, broken: str
) -> None:
    path = write_release(project, GOOD)
    if broken == "gh":
        (tmp_path / "bin" / "gh").write_text("#!/bin/sh\necho no >&2; exit 1\n")
    else:
        git(project.root.parent / "origin.git", "update-ref", "-d", broken)
    with pytest.raises(MlopsError):
        propose(project, path)
    assert git(project.root, "status", "--porcelain", "-uall") == ""


def test_a_created_pull_request_that_is_not_listed_is_an_error(
    project: Project, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_requests, "find_open", lambda *_: None)
    with pytest.raises(MlopsError) as caught:
        propose(project, write_release(project, GOOD))
    assert caught.value.what == (
        "the pull request of release/staging/m was created, but GitHub does not list it as open"
    )


def test_an_origin_without_main_is_an_error(project: Project, github: FakeGitHub) -> None:
    path = write_release(project, GOOD)
    git(project.root.parent / "origin.git", "update-ref", "-d", "refs/heads/main")
    with pytest.raises(MlopsError) as caught:
        propose(project, path)
    assert caught.value.what == "the origin has no branch main"
    assert github["calls"] == []


def test_another_change_on_the_same_main_is_pushed(project: Project, github: FakeGitHub) -> None:
    propose(project, write_release(project, BAD))
    before = git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m")
    propose(project, write_release(project, GOOD))
    assert git(project.root, "ls-remote", "origin", "refs/heads/release/staging/m") != before


def test_a_proposal_works_in_a_detached_checkout_as_in_workflows(project: Project, github: FakeGitHub) -> None:
    git(project.root, "checkout", "--quiet", "--detach")
    assert propose(project, write_release(project, GOOD)).number == 1


# --- comments ---------------------------------------------------------------------------------------------------------


def human(number: int, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": "mallory", "type": "User"}, "body": body}


def test_a_comment_is_written_once_and_then_edited(project: Project, github: FakeGitHub) -> None:
    github.set(comments=[human(n, "looks good") for n in range(1, 4)])
    gh = Gh.find(project.root)
    for text in ("first", "second", "third"):
        comment(gh, 7, MARKER, f"{MARKER}\n{text}\n")
    bodies = [comment["body"] for comment in github["comments"]]
    assert bodies == ["looks good"] * 3 + [f"{MARKER}\nthird\n"]
    listed = ["api", "repos/o/r/issues/7/comments?per_page=100", "--paginate"]
    _, written, _, edited, *_ = github["calls"]
    assert written[:-1] == ["pr", "comment", "7", "--body-file"]
    assert edited[:-1] == ["api", "repos/o/r/issues/comments/4", "--method", "PATCH", "--input"]
    assert github["calls"][::2] == [listed] * 3
    assert not any(Path(call[-1]).exists() for call in (written, edited))
    comment(gh, 7, "<!-- mlops:gates m staging -->", "<!-- mlops:gates m staging -->\nanother environment\n")
    assert len(github["comments"]) == 5


def test_the_summary_of_the_run_has_the_text_of_the_comment(
    project: Project, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    comment(Gh.find(project.root), 7, MARKER, f"{MARKER}\nverdicts\n")
    assert "verdicts" in summary.read_text()


@pytest.mark.parametrize("between", ["", "\n", " "])
def test_a_comment_is_found_on_any_page(project: Project, github: FakeGitHub, between: str) -> None:
    """Some versions of gh print one list a page instead of one list."""
    ours = {"id": 9, "user": {"login": "mlops[bot]", "type": "Bot"}, "body": f"{MARKER}\nold"}
    github.set(comments=[*[human(n, "+1") for n in range(1, 6)], ours], between=between)
    comment(Gh.find(project.root), 7, MARKER, f"{MARKER}\nnew")
    assert [c["body"] for c in github["comments"]][-1] == f"{MARKER}\nnew" and len(github["comments"]) == 6


def test_a_persons_comment_is_never_edited(project: Project, github: FakeGitHub) -> None:
    """Its author could change the verdict afterwards."""
    forged = f"{MARKER}\nevery gate passes\n"
    quoting = {"id": 2, "user": {"login": "other[bot]", "type": "Bot"}, "body": f"> {MARKER}\n> quoted\n"}
    deleted_account = {"id": 3, "user": None, "body": None}
    github.set(comments=[human(1, forged), quoting, deleted_account])
    comment(Gh.find(project.root), 7, MARKER, f"{MARKER}\nrefused\n")
    bodies = [comment["body"] for comment in github["comments"]]
    assert bodies == [forged, quoting["body"], None, f"{MARKER}\nrefused\n"]


def test_comments_are_not_passed_in_argv(project: Project, github: FakeGitHub) -> None:
    gh = Gh.find(project.root)
    for _ in range(2):
        comment(gh, 7, MARKER, f"{MARKER}\nsecret plan")
    assert "secret plan" not in json.dumps(github["calls"])


# --- merges and approvals ---------------------------------------------------------------------------------------------


def pull(number: int, **changes: Any) -> dict[str, Any]:
    values = {
        "number": number,
        "merged_at": "2026-03-02T10:00:00Z",
        "merge_commit_sha": "f" * 40,
        "base": {"ref": "main"},
    }
    return {**values, "user": {"login": "ann"}, **changes}


def review(login: str | None, state: str, association: str = "MEMBER") -> dict[str, Any]:
    return {"user": {"login": login} if login else None, "state": state, "author_association": association}


def test_a_merge_names_its_author_and_the_approvals_in_force(project: Project, github: FakeGitHub) -> None:
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
            review("mallory", "APPROVED", "NONE"),
            review("eve", "APPROVED", "CONTRIBUTOR"),
        ],
    )
    assert find_merge(Gh.find(project.root), "e" * 40) == Merge(12, "ann", ("bob", "ghost", "kim"))
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
def test_missing_fields_of_a_pull_request_are_not_guessed(
    project: Project, github: FakeGitHub, changes: dict[str, Any], found: Merge | None
) -> None:
    github.set(pulls=[pull(1, **changes)])
    assert find_merge(Gh.find(project.root), "e" * 40) == found
    without = {name: value for name, value in pull(1, **changes).items() if value not in (None, {})}
    github.set(pulls=[without])
    assert find_merge(Gh.find(project.root), "e" * 40) == found


def test_the_pull_request_merged_as_this_commit_is_chosen_among_several(project: Project, github: FakeGitHub) -> None:
    github.set(
        pulls=[
            pull(1, merged_at=None),
            pull(2, base={"ref": "feature"}, merge_commit_sha="e" * 40),
            pull(3),
            pull(4, merge_commit_sha="e" * 40, user=None),
        ]
    )
    gh = Gh.find(project.root)
    assert find_merge(gh, "e" * 40) == Merge(4, "ghost", ())
    assert find_merge(gh, "d" * 40) == Merge(3, "ann", ())
    github.set(pulls=[pull(1, merged_at=None), pull(2, base={"ref": "feature"})])
    assert find_merge(gh, "e" * 40) is None


# --- failures ---------------------------------------------------------------------------------------------------------


def test_an_error_names_the_gh_command(project: Project, github: FakeGitHub) -> None:
    with pytest.raises(MlopsError, match="gh release create x: gh: unknown command"):
        Gh.find(project.root).run("release", "create", "x")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo ' in words ' >&2; echo more; exit 1", "gh api x y: in words"),
        ("echo ' on stdout '; exit 3", "gh api x y: on stdout"),
        ("exit 1", "gh api x y: "),
    ],
)
def test_an_error_quotes_gh(tmp_path: Path, github: FakeGitHub, script: str, says: str) -> None:
    (tmp_path / "bin" / "gh").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(MlopsError) as caught:
        Gh(tmp_path, "o/r").run("api", "x", "y", "a secret")
    assert caught.value.what == says


def test_gh_runs_in_the_clone(tmp_path: Path, github: FakeGitHub) -> None:
    (tmp_path / "bin" / "gh").write_text("#!/bin/sh\npwd\n")
    assert Gh(tmp_path / "bin", "o/r").run() == f"{tmp_path / 'bin'}\n"


def test_a_missing_gh_or_repository_is_an_error_with_a_fix(
    project: Project, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_git = tmp_path / "only-git"
    only_git.mkdir()
    (only_git / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(only_git))
    with pytest.raises(MlopsError) as caught:
        Gh.find(project.root).dispatch("train.yml", {"model": "m"})
    assert (caught.value.what, caught.value.fix) == ("the GitHub CLI `gh` is not on the PATH", "install gh")
    monkeypatch.delenv("GITHUB_REPOSITORY")
    with pytest.raises(MlopsError) as caught:
        Gh.find(project.root)
    assert caught.value.what == (
        f"cannot find the GitHub repository of {project.root}: expected GITHUB_REPOSITORY, GH_REPO, or an origin on "
        "github.com; found none of them"
    )
    assert caught.value.fix == "set GITHUB_REPOSITORY=owner/name, or point origin to the repository"


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
def test_outside_workflows_the_origin_names_the_repository(
    project: Project, monkeypatch: pytest.MonkeyPatch, url: str, named: str | None
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    git(project.root, "remote", "set-url", "origin", url)
    if named is None:
        with pytest.raises(MlopsError, match="cannot find the GitHub repository"):
            Gh.find(project.root)
    else:
        assert Gh.find(project.root).repository == named


def test_the_repository_that_gh_is_pointed_to_counts_before_the_origin(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    git(project.root, "remote", "set-url", "origin", "https://github.com/o/upstream.git")
    for named in ("o/r", "github.com/o/r"):
        monkeypatch.setenv("GH_REPO", named)
        assert Gh.find(project.root).repository == "o/r"
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/workflow")
    assert Gh.find(project.root).repository == "o/workflow"


def test_a_clone_without_an_origin_has_no_repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    git(project.root, "remote", "remove", "origin")
    with pytest.raises(MlopsError, match="cannot find the GitHub repository"):
        Gh.find(project.root)


def test_a_text_file_is_utf_8_and_may_be_deleted_early() -> None:
    with text_file("é ✅\n") as name:
        assert Path(name).read_bytes() == "é ✅\n".encode()
        Path(name).unlink()


def test_dispatch_starts_a_workflow_on_main(project: Project, github: FakeGitHub) -> None:
    Gh.find(project.root).dispatch("train.yml", {"model": "m", "why": "drift"})
    assert github["calls"] == [["workflow", "run", "train.yml", "--ref", "main", "-f", "model=m", "-f", "why=drift"]]
