"""The server: who may push, open, review and merge, and the events that follow."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from laptop.github.forge.actors import BOT, Actor, RequestDeniedError, person
from laptop.github.forge.git_transport import authorization
from laptop.github.forge.repository_settings import BranchProtection, RepositorySettings
from laptop.github.hub import Hub
from laptop.tests.github.sample_repository import PEOPLE, git, hub_with, push, write

pytestmark = pytest.mark.slow

PROTECTED = replace(
    PEOPLE,
    users=("maria", "noah", "olga"),
    teams={"acme/approvers": ("noah",)},
    protection=BranchProtection(required_checks=("test",), bypass=("release-bot",)),
)
OWNERS = "* @maria @olga\nmodels/*/releases/prod.yaml @acme/approvers\ndocs/\n"
FILES = {".github/CODEOWNERS": OWNERS, "models/m/releases/prod.yaml": "bundle: null\n", "docs/a.md": "a\n"}


def refusal(hub: Hub, user: str, number: int) -> str:
    with pytest.raises(RequestDeniedError) as caught:
        hub.merge(user, number)
    assert caught.value.status == 405
    return caught.value.fix


def pass_check(hub: Hub, number: int, name: str = "test", conclusion: str = "success") -> None:
    with hub.server.change() as state:
        checks = state["checks"].setdefault(hub.pull_request(number).head_sha, {})
        checks[name] = {"conclusion": conclusion, "workflow": "ci", "run": 1}


def attempt(clone: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(clone), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_the_first_commit_has_all_files_that_git_does_not_ignore(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("tracked.txt", "new.txt", "ignored.log", "gone.txt", "deep/.hidden"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, encoding="utf-8")
    (source / ".gitignore").write_text("*.log\n", encoding="utf-8")
    git(source, "init", "--quiet")
    git(source, "add", "tracked.txt", "gone.txt")
    (source / "gone.txt").unlink()
    before = git(source, "status", "--porcelain")
    hub = Hub(tmp_path / "home")
    commit = hub.create(source)
    assert git(hub.server.repository.path, "ls-tree", "-r", "--name-only", commit).split() == [
        ".gitignore",
        "deep/.hidden",
        "new.txt",
        "tracked.txt",
    ]
    assert git(source, "status", "--porcelain") == before
    assert hub.pump() == []
    with pytest.raises(Exception, match="already"):
        hub.create(source)


def test_only_a_bypassing_app_can_push_to_a_protected_main(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, FILES, PROTECTED)
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "feature", {"x": "1"})
    assert "changes must be made through a pull request" in attempt(clone, "push", "origin", "feature:main")
    assert "changes must be made through a pull request" in attempt(clone, "push", "origin", ":main")
    assert "hidden ref" in attempt(clone, "push", "origin", "feature:refs/pull/1/head")

    app = hub.register_app("release-bot", {"contents": "write"})
    token = hub.server.issue_token(hub.server.app_actor(app.client_id, app.private_key))
    git(clone, "config", "http.https://github.localhost/.extraheader", authorization(token))
    git(clone, "push", "--quiet", "origin", "feature:main")
    assert hub.server.repository.resolve_ref("main") == git(clone, "rev-parse", "feature")
    git(clone, "switch", "--quiet", "feature")
    (clone / ".github" / "workflows").mkdir()
    (clone / ".github" / "workflows" / "evil.yml").write_text("on: push\n", encoding="utf-8")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "x")
    assert "without `workflows` permission" in attempt(clone, "push", "origin", "feature")


def test_an_app_can_rebase_a_branch_onto_workflow_changes_of_main(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, FILES, PEOPLE)
    clone = hub.clone(tmp_path / "clone", "maria")
    app = hub.register_app("bot", {"contents": "write"})
    header = authorization(hub.server.issue_token(hub.server.app_actor(app.client_id, app.private_key)))
    by_app = ("-c", f"http.https://github.localhost/.extraheader={header}", "push", "--quiet", "--force", "origin")
    git(clone, "config", "--unset", "http.https://github.localhost/.extraheader")
    git(clone, "switch", "--quiet", "-c", "release")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "Release")
    git(clone, *by_app, "release")
    maria = authorization(hub.server.issue_token(person("maria")))
    git(clone, "config", "http.https://github.localhost/.extraheader", maria)
    git(clone, "switch", "--quiet", "main")
    push(clone, "main", {".github/workflows/new.yml": "on: push\n"})
    git(clone, "config", "--unset", "http.https://github.localhost/.extraheader")
    git(clone, "rebase", "--quiet", "main", "release")
    git(clone, *by_app, "release")
    assert hub.server.repository.resolve_ref("release") == git(clone, "rev-parse", "release")
    (clone / ".github" / "workflows" / "new.yml").write_text("on: pull_request\n", encoding="utf-8")
    git(clone, "commit", "--quiet", "--all", "--message", "Mine")
    assert "without `workflows` permission" in attempt(clone, *by_app, "release")


ASKS = """
on: [pull_request, merge_group]
jobs:
  ask:
    runs-on: ubuntu-latest
    permissions: {contents: write, pull-requests: write, id-token: write}
    steps:
      - run: echo "base ${{ github.event.merge_group.base_sha }}"
      - run: echo "head ${{ github.event.pull_request.head.repo.full_name }}"
      - run: echo "knows ${{ vars.PLACE || 'nothing' }} ${{ secrets.KEY && 'the key' || 'nothing' }}"
      - run: gh api repos/acme/mlops/issues/1/comments && gh api repos/acme/mlops/issues/1/comments -f body=hello
        env: {GH_TOKEN: "${{ github.token }}"}
"""


def test_a_job_for_a_pull_request_from_a_fork_can_only_read(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": ASKS})
    hub.set_variable("PLACE", "here")
    hub.set_secret("KEY", "hunter2-hunter2")
    clone = hub.clone(tmp_path / "clone", "eve")
    git(clone, "switch", "--quiet", "-c", "patch")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "x")
    pull = hub.server.open_from_fork("eve", "eve/mlops", clone, "patch", title="Mine")
    (run,) = hub.pump()
    (job,) = run.jobs
    assert (run.event, run.actor, job.conclusion) == ("pull_request", "eve", "failure")
    assert job.log is not None
    assert "head eve/mlops" in job.log.read_text()
    assert "knows nothing nothing" in job.log.read_text()
    assert "\n[]\n" in job.log.read_text(), "it could read"
    assert "Resource not accessible by integration" in job.log.read_text()
    assert hub.server.comments(pull.number) == []
    assert hub.server.runs()[0]["head_repository"] == "eve/mlops"
    assert hub.server.repository.resolve_ref("patch") is None, "nothing of it is a branch here"
    with pytest.raises(RequestDeniedError, match="not a repository name"):
        hub.server.open_from_fork("eve", "eve", clone, "patch", title="Mine")


def test_a_merge_queue_checks_the_commit_that_the_merge_would_create(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": ASKS, "a.txt": "1\n"})
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "feature", {"a.txt": "2\n"})
    hub.open("maria", "feature", "Two")
    hub.pump()
    main = hub.server.repository.resolve_ref("main")
    head = hub.server.try_merge(person("maria"), 1)
    (run,) = hub.pump()
    assert (run.event, run.action, run.sha) == ("merge_group", "checks_requested", head)
    assert run.ref == f"refs/heads/gh-readonly-queue/main/pr-1-{main}"
    assert run.jobs[0].log is not None
    assert f"base {main}" in run.jobs[0].log.read_text()
    assert hub.server.checks(head)["ask"]["conclusion"] == "success"
    assert hub.server.repository.read_file(head, "a.txt") == b"2\n"
    assert (hub.server.repository.resolve_ref("main"), hub.pull_request(1).state) == (main, "OPEN"), (
        "the queue does the rest"
    )
    git(clone, "switch", "--quiet", "main")
    push(clone, "main", {"a.txt": "3\n"})
    with pytest.raises(RequestDeniedError, match="conflicts"):
        hub.server.try_merge(person("maria"), 1)


def test_a_push_needs_the_credential_of_a_user_with_write_access(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"x": "1"})
    stranger = hub.clone(tmp_path / "stranger", "eve")
    git(stranger, "switch", "--quiet", "-c", "b")
    git(stranger, "commit", "--quiet", "--allow-empty", "--message", "x")
    assert "denied to eve" in attempt(stranger, "push", "origin", "b")
    git(stranger, "config", "--unset", "http.https://github.localhost/.extraheader")
    assert "no credential" in attempt(stranger, "push", "origin", "b")
    assert "no credential" in attempt(stranger, "fetch", "origin")
    hub.configure(replace(PEOPLE, private=False))
    git(stranger, "fetch", "--quiet", "origin")


def test_the_git_settings_of_the_person_who_runs_the_tests_have_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job on the laptop's GitHub runs them as well. Its settings lead git to the repository that the job is of."""
    home = write(tmp_path / "person", {".gitconfig": '[url "ext::false %S "]\ninsteadOf = https://github.localhost/'})
    monkeypatch.setenv("HOME", str(home))
    hub = hub_with(tmp_path, {"README": "x"})
    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"x": "1"})
    assert hub.server.repository.resolve_ref("feature")


def test_a_push_that_bypasses_the_transport_is_denied(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"x": "1"})
    clone = hub.clone(tmp_path / "clone", "maria")
    git(clone, "switch", "--quiet", "-c", "b")
    assert "Bad credentials" in attempt(clone, "push", str(hub.server.repository.path), "b")


def test_a_merge_needs_checks_approvals_and_owners(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, FILES, PROTECTED)
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "release", {"models/m/releases/prod.yaml": "bundle: x\n"})
    number = hub.open("maria", "release", "Release").number
    assert "the required check 'test' has not run" in refusal(hub, "maria", number)
    pass_check(hub, number, conclusion="")
    assert "is running" in refusal(hub, "maria", number)
    pass_check(hub, number, conclusion="failure")
    assert "ended in failure" in refusal(hub, "maria", number)
    pass_check(hub, number)
    assert refusal(hub, "maria", number) == (
        "resolve: it has 0 of 1 approvals; models/m/releases/prod.yaml lacks the approval of an owner (acme/approvers)"
    )
    with pytest.raises(RequestDeniedError, match="your own pull request"):
        hub.approve("maria", number)
    with pytest.raises(RequestDeniedError, match="not a collaborator"):
        hub.approve("eve", number)
    hub.approve("olga", number)
    assert "lacks the approval of an owner" in refusal(hub, "maria", number)
    hub.request_changes("noah", number, "why?")
    assert "noah requests changes" in refusal(hub, "maria", number)
    hub.approve("noah", number)

    # A new commit dismisses the approvals, and has no checks yet.
    push(clone, "release", {"models/m/releases/prod.yaml": "bundle: y\n"})
    assert "0 of 1 approvals" in refusal(hub, "maria", number)
    assert [review.state for review in hub.pull_request(number).reviews] == [
        "DISMISSED",
        "CHANGES_REQUESTED",
        "DISMISSED",
    ]
    hub.approve("noah", number)
    pass_check(hub, number)
    assert hub.blockers(number) == []
    merged = hub.merge("maria", number)
    assert git(hub.server.repository.path, "log", "-1", "--format=%s|%an|%P", merged) == (
        f"Release (#{number})|maria|{hub.pull_request(number).base_sha}"
    )
    with pytest.raises(RequestDeniedError) as caught:
        hub.merge("maria", number)
    assert "it is merged" in caught.value.fix


def test_a_strict_rule_needs_an_up_to_date_head_and_a_conflict_never_merges(tmp_path: Path) -> None:
    settings = replace(PROTECTED, protection=BranchProtection(strict=True, approvals=0, code_owners=False))
    hub = hub_with(tmp_path, FILES, settings)
    clone = hub.clone(tmp_path / "clone", "maria")
    for branch in ("one", "two", "three"):
        git(clone, "switch", "--quiet", "main")
        push(clone, branch, {"docs/a.md": f"{branch}\n"} if branch != "two" else {"docs/b.md": "b\n"})
        hub.open("maria", branch, branch)
    hub.merge("maria", 1)
    assert refusal(hub, "maria", 2) == "resolve: its branch lacks the newest commits of main"
    assert "it conflicts with main" in refusal(hub, "maria", 3)
    git(clone, "fetch", "--quiet")
    git(clone, "switch", "--quiet", "two")
    git(clone, "merge", "--quiet", "--message", "Update", "origin/main")
    git(clone, "push", "--quiet", "origin", "two")
    assert git(hub.server.repository.path, "show", f"{hub.merge('maria', 2, 'merge')}:docs/a.md") == "one"


def test_a_pull_request_needs_two_different_branches(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, FILES)
    clone = hub.clone(tmp_path / "clone", "maria")
    with pytest.raises(RequestDeniedError, match="not a branch"):
        hub.open("maria", "nowhere", "T")
    git(clone, "push", "--quiet", "origin", "main:same")
    with pytest.raises(RequestDeniedError, match="No commits between main and same"):
        hub.open("maria", "same", "T")
    push(clone, "feature", {"x": "1"})
    hub.open("maria", "feature", "T")
    with pytest.raises(RequestDeniedError, match="already exists for acme:feature: #1"):
        hub.open("maria", "feature", "T")
    git(clone, "push", "--quiet", "origin", ":feature")
    assert hub.pull_request(1).state == "CLOSED"


def test_events_caused_with_github_token_are_suppressed_with_a_reason(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {"w.yml": "on: [push, pull_request]\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"},
        replace(PEOPLE, actions_open_pull_requests=True),
    )
    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"x": "1"})
    hub.pump()
    job = Actor(BOT, "job", {"pull-requests": "write", "contents": "write"}, run=1)
    hub.server.open_pull_request(job, title="By the workflow", body="", head="feature")
    assert hub.pump() == []
    assert hub.suppressed()[-1]["why"].startswith("caused with GITHUB_TOKEN")
    hub.close("maria", 1)
    app = Actor("mlops-bot[bot]", "app", {"pull-requests": "write"})
    hub.server.open_pull_request(app, title="By the app", body="", head="feature")
    assert [(run.event, run.actor) for run in hub.pump()] == [("pull_request", "mlops-bot[bot]")]


def test_a_token_is_limited_to_its_permissions(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"x": "1"})
    server = hub.server
    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"y": "1"})
    hub.open("maria", "feature", "T")
    readers = dict.fromkeys(("contents", "pull-requests", "issues", "actions"), "read")
    app = Actor("reader[bot]", "app", readers)
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: server.open_pull_request(app, title="T", body="", head="feature"),
        "approve": lambda: server.review(app, 1, approve=True),
        "comment": lambda: server.comment(app, 1, "hi"),
        "merge": lambda: server.merge(app, 1, "squash"),
        "dispatch": lambda: server.dispatch(app, "w.yml", "main", {}),
        "repository_dispatch": lambda: server.repository_dispatch(app, "drift", {}),
        "close": lambda: server.close(app, 1),
    }
    for call in calls.values():
        with pytest.raises(RequestDeniedError, match="Resource not accessible by integration"):
            call()
    assert hub.pull_request(1).state == "OPEN"


def test_a_commit_with_skip_ci_starts_no_workflow(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"w.yml": "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"})
    push(hub.clone(tmp_path / "clone", "maria"), "main", {"x": "1"}, "Tidy [skip ci]")
    assert hub.pump() == []
    assert hub.suppressed()[-1]["why"] == "the commit message says to skip workflows"


@pytest.mark.parametrize(
    ("message", "skipped"),
    [
        ("Tidy\n\n\nskip-checks: true", True),
        ("Tidy\n\nWhy.\n\n\nSigned-off-by: me\nskip-checks:true", True),
        ("Tidy\n\nskip-checks: true", False),
        ("Tidy\n\n\nskip-checks: true\nSigned-off-by: me", False),
        ("Tidy\n\n\nskip-checks: false", False),
    ],
)
def test_a_trailer_can_skip_the_workflows(tmp_path: Path, message: str, skipped: bool) -> None:
    hub = hub_with(tmp_path, {"w.yml": "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"})
    clone = hub.clone(tmp_path / "clone", "maria")
    git(clone, "commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--message", message)
    git(clone, "push", "--quiet", "origin", "main")
    assert bool(hub.suppressed()) is skipped


def test_branch_and_path_filters_select_the_workflows_of_an_event(tmp_path: Path) -> None:
    one_job = "jobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"
    hub = hub_with(
        tmp_path,
        {
            "main.yml": "on: {push: {branches: [main], paths: ['models/**', '!models/x/**']}}\n" + one_job,
            "docs.yml": "on: {pull_request: {branches: [main], paths-ignore: ['models/**']}}\n" + one_job,
            "labels.yml": "on: {pull_request: {types: [labeled, closed]}}\n" + one_job,
            "tags.yml": "on: {push: {tags: ['v*']}}\n" + one_job,
        },
    )
    clone = hub.clone(tmp_path / "clone", "maria")

    def started() -> list[str]:
        return [run.path.rsplit("/", 1)[-1] for run in hub.pump()]

    push(clone, "main", {"models/x/a": "1", "README": "1"})
    assert started() == []
    push(clone, "main", {"models/y/a": "1"})
    assert started() == ["main.yml"]
    push(clone, "feature", {"models/y/a": "2"})
    assert started() == []
    hub.open("maria", "feature", "T")
    assert started() == []
    push(clone, "feature", {"README": "2"})
    assert started() == ["docs.yml"]
    hub.server.label(person("maria"), 1, "go")
    assert started() == ["labels.yml"]
    hub.close("maria", 1)
    assert started() == ["labels.yml"]
    git(clone, "tag", "v1")
    git(clone, "push", "--quiet", "origin", "v1")
    assert started() == ["tags.yml"]


def test_settings_round_trip_through_json() -> None:
    assert RepositorySettings.from_json(PROTECTED.to_json()) == PROTECTED
    assert RepositorySettings.from_json(RepositorySettings().to_json()) == RepositorySettings()


def test_a_token_is_valid_as_soon_as_it_is_issued(tmp_path: Path) -> None:
    server = hub_with(tmp_path, {"README": "x"}).server
    for _ in range(100):  # writes within one tick of the clock
        token = server.issue_token(person("maria"))
        assert server.authenticate(token).login == "maria"
        server.revoke_token(token)
        with pytest.raises(RequestDeniedError):
            server.authenticate(token)
