"""GitHub by way of `gh`: a stand-in on the PATH keeps what it was told in a file, and answers from it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.promotion.alarm import read_alarm
from pipelines.promotion.forge import Forge, Merge
from pipelines.promotion.images import pin_images
from pipelines.promotion.plan import environments_to_deploy, models_to_train
from pipelines.promotion.repository import Repository
from pipelines.promotion.restore import restore_release
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
    assert (pull.number, pull.branch, pull.title, pull.state) == (
        1,
        "release/staging/m",
        "Release m to staging",
        "OPEN",
    )
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


def test_without_gh_or_a_repository_it_says_what_to_do(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_git = tmp_path / "only-git"
    only_git.mkdir()
    (only_git / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(only_git))
    with pytest.raises(MlopsError, match="is not on the PATH"):
        Forge.of(project.root).dispatch("train.yml", {"model": "m"})
    monkeypatch.delenv("GITHUB_REPOSITORY")
    with pytest.raises(MlopsError, match="not known which GitHub repository"):
        Forge.of(project.root)


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


def test_a_run_of_a_workflow_is_asked_for_on_main(project: Project, github: GitHub) -> None:
    Forge.of(project.root).dispatch("train.yml", {"model": "m", "why": "drift"})
    assert github["calls"] == [["workflow", "run", "train.yml", "--ref", "main", "-f", "model=m", "-f", "why=drift"]]


# --- the commit of a rollback -----------------------------------------------------------------------------------------


def restore(project: Project) -> str:
    return restore_release(project, MODEL, "staging", GOOD, BAD, "too slow:\n\x1b[31mvery")


def test_a_rollback_is_one_commit_on_main_that_names_both_bundles(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    (project.root / RELEASE).write_text("work in progress")
    commit = restore(project)
    git(project.root, "fetch", "--quiet", "origin")
    assert git(project.root, "rev-parse", "origin/main") == commit
    release = git(project.root, "show", f"{commit}:{RELEASE}")
    assert f"bundle: {GOOD}\nreplaces: {BAD}" in release
    assert git(project.root, "log", "-1", "--format=%s%n%b", commit) == (
        f"Roll {MODEL} in staging back\ntoo slow: �[31mvery"
    )
    assert (project.root / RELEASE).read_text() == "work in progress", "the working tree is left alone"


def test_a_rollback_that_git_knows_of_is_not_committed_again(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    commit = restore(project)
    assert restore(project) == commit
    assert git(project.root, "rev-list", "--count", "origin/main") == "3"


def test_a_rollback_does_not_undo_what_was_pushed_in_between(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.promotion import restore as module

    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(project.root.parent / "origin.git"), "other")
    pushes = []
    plain = module.git

    def racing(root: Path, *arguments: str, **named: Any) -> str:
        if arguments[0] == "push" and len(pushes) < 2:
            pushes.append(arguments)
            (other / f"more-{len(pushes)}").write_text("x")
            commit_all(other, "somebody was faster")
        return plain(root, *arguments, **named)

    monkeypatch.setattr(module, "git", racing)
    commit = restore(project)
    listed = git(project.root, "ls-tree", "-r", "--name-only", commit)
    assert len(pushes) == 2 and "more-1" in listed and "more-2" in listed
    assert git(project.root.parent / "origin.git", "rev-parse", "main") == commit


def test_a_rollback_that_may_not_push_says_so(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    hook = project.root.parent / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'protected branch' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(MlopsError, match="protected branch"):
        restore(project)


def test_a_release_file_on_main_that_cannot_be_read_is_replaced(project: Project) -> None:
    (project.root / RELEASE).write_text("nonsense")
    commit_all(project.root, "broken")
    commit = restore(project)
    assert GOOD in git(project.root, "show", f"{commit}:{RELEASE}")


# --- alarms and plans -------------------------------------------------------------------------------------------------


def event(**changes: Any) -> dict[str, Any]:
    payload = {"model": "m1", "environment": "prod", "reason": "mae 61 is over 55"}
    return {"action": "breach", "client_payload": payload | changes.pop("payload", {}), **changes}


def test_an_alarm_is_read_from_the_event_that_carries_it() -> None:
    alarm = read_alarm(json.dumps(event(payload={"bundle": BAD, "more": 1}, sender="x")).encode())
    assert (alarm.kind, alarm.model, alarm.environment, alarm.bundle) == ("breach", "m1", "prod", BAD)
    assert read_alarm(json.dumps(event(action="drift")).encode()).bundle is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b"x" * (1 << 20) + b"x",
        json.dumps(event(action="opened")).encode(),
        json.dumps(event(client_payload=None)).encode(),
        json.dumps(event(client_payload=[])).encode(),
        json.dumps(event(client_payload="text")).encode(),
        json.dumps(event(payload={"model": "../../etc"})).encode(),
        json.dumps(event(payload={"environment": "--help"})).encode(),
        json.dumps(event(payload={"reason": ""})).encode(),
        json.dumps(event(payload={"reason": "x" * 401})).encode(),
        json.dumps(event(payload={"bundle": "latest"})).encode(),
    ],
    ids=lambda content: str(content)[:40],
)
def test_an_event_that_is_no_alarm_is_an_error_for_people(content: bytes) -> None:
    with pytest.raises(MlopsError, match="the event"):
        read_alarm(content)


@pytest.mark.parametrize(
    ("files", "environments"),
    [
        ([RELEASE], ("staging",)),
        ([RELEASE, RELEASE.replace("staging", "dev")], ("dev", "staging")),
        (["Pulumi.prod.yaml"], ("prod",)),
        (["Pulumi.yaml"], ("dev", "staging", "prod")),
        (["infra/components/bucket.py"], ("dev", "staging", "prod")),
        (["data-contracts/x.odcs.yaml"], ("dev", "staging", "prod")),
        ([f"models/{MODEL}/model.yaml"], ("dev", "staging", "prod")),
        ([f"models/{MODEL}/train.py", "docs/x.md", "pipelines/x.py"], ()),
        ([RELEASE.replace("staging", "nowhere")], ()),
        ([], ()),
    ],
)
def test_a_change_is_deployed_where_it_may_change_something(
    project: Project, files: list[str], environments: tuple[str, ...]
) -> None:
    assert environments_to_deploy(project, files) == environments


def test_models_are_trained_when_the_environment_that_trains_pins_another_image(project: Project) -> None:
    repository, image = Repository(project.root), "sha256:" + "1a" * 32
    before, file = repository.head(), project.stack_file("dev")
    assert models_to_train(project, repository, before) == (), "there is no image to train with"
    pin_images(project, "staging", Images(training=image))
    assert models_to_train(project, repository, before) == ()
    pin_images(project, "dev", Images(serving=image))
    assert models_to_train(project, repository, before) == ()
    pin_images(project, "dev", Images(training=image))
    assert models_to_train(project, repository, before) == project.model_names != ()
    pinned = commit_all(project.root, "Pin")
    file.write_text(file.read_text() + "# another word\n")
    assert models_to_train(project, repository, pinned) == (), "the file changed, and pins what it pinned"


def test_models_are_trained_when_the_stack_file_before_was_none_or_wrong(project: Project) -> None:
    repository, file = Repository(project.root), project.stack_file("dev")
    text = file.read_text()
    file.write_text("config: [")
    wrong = commit_all(project.root, "Wrong")
    file.unlink()
    gone = commit_all(project.root, "Gone")
    file.write_text(text)
    pin_images(project, "dev", Images(training="sha256:" + "1a" * 32))
    for before in (wrong, gone):
        assert models_to_train(project, repository, before) == project.model_names
