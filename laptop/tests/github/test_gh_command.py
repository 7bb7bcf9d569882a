"""The laptop's `gh`: arguments, output and errors."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laptop.github.forge.actors import BOT, Actor, person
from laptop.github.forge.repository_settings import BranchProtection, RepositorySettings
from laptop.github.gh_cli import gh_program as gh
from laptop.github.hub import Hub
from laptop.tests.github.sample_repository import git, hub_with, push

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
WORKFLOW = """
name: Train
on: {workflow_dispatch: {inputs: {model: {required: true}, size: {type: choice, options: [s, l], default: s}}}}
jobs: {a: {runs-on: ubuntu-latest, steps: [{run: "echo ${{ inputs.model }} ${{ inputs.size }}"}]}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    settings = RepositorySettings(
        users=("maria", "noah"),
        protection=BranchProtection(required_checks=("test",), approvals=1, code_owners=False),
        environments={"dev": (), "prod": ("main",)},
    )
    hub = hub_with(tmp_path, {"train.yml": WORKFLOW, "README": "x"}, settings)
    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"x": "1"}, "Subject")
    return hub


@pytest.fixture
def run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_GITHUB", str(hub.server.folder))
    monkeypatch.setenv("GH_REPO", "acme/mlops")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    (tmp_path / "body.md").write_text("The body\n", encoding="utf-8")

    def call(*arguments: str, as_: Actor | str = "maria") -> tuple[int, str, str]:
        actor = person(as_) if isinstance(as_, str) else as_
        monkeypatch.setenv("GH_TOKEN", hub.server.issue_token(actor))
        code = gh.main(arguments)
        out, err = capsys.readouterr()
        return code, out.strip(), err.strip()

    return call


def create(run: Run, **options: Any) -> tuple[int, str, str]:
    return run(
        *("pr", "create", "--title", "A title", "--body-file", "body.md", "--head", "feature", "--base", "main"),
        *("--label", "release"),
        **options,
    )


def test_a_pull_request_can_be_opened_listed_viewed_commented_reviewed_and_merged(run: Run, hub: Hub) -> None:
    assert create(run) == (0, "https://github.localhost/acme/mlops/pull/1", "")
    fields = "number,title,state,headRefName,labels,author"
    code, out, _ = run("pr", "list", "--head", "feature", "--state", "open", "--json", fields)
    assert json.loads(out) == [
        {
            "number": 1,
            "title": "A title",
            "state": "OPEN",
            "headRefName": "feature",
            "labels": [{"name": "release"}],
            "author": {"login": "maria", "is_bot": False},
        }
    ]
    assert run("pr", "list", "--head", "other", "--json", "number")[1] == "[]"
    assert run("pr", "list", "--state", "merged", "--json", "number", "--jq", ".[].number")[1] == ""
    assert run("pr", "list", "--json", "number", "--jq", ".[0].number")[1] == "1"
    assert run("pr", "comment", "1", "--body-file", "body.md")[1].endswith("/pull/1#issuecomment-1")
    code, out, err = run("pr", "merge", "1", "--squash")
    assert (code, out) == (1, "")
    assert "is not mergeable: the base branch policy prohibits the merge" in err
    assert "the required check 'test' has not run" in err
    view = json.loads(run("pr", "view", "1", "--json", "mergeStateStatus,reviewDecision,mergeable,body,comments")[1])
    assert (view["mergeStateStatus"], view["reviewDecision"], view["mergeable"]) == (
        "BLOCKED",
        "REVIEW_REQUIRED",
        "MERGEABLE",
    )
    assert (view["body"], view["comments"][0]["body"]) == ("The body\n", "The body\n")
    shown = run("pr", "view", "1", "--comments")[1]
    assert shown.startswith("title:\tA title\nstate:\tOPEN\nauthor:\tmaria\n")
    assert shown.endswith("--\nmaria:\nThe body")
    assert run("pr", "review", "1", "--approve", as_="noah")[0] == 0
    with hub.server.change() as state:
        state["checks"][hub.pull_request(1).head_sha] = {"test": {"conclusion": "success", "workflow": "ci", "run": 1}}
    assert run("pr", "merge", "1", "--squash", as_="noah") == (0, "", "")
    view = json.loads(run("pr", "view", "1", "--json", "state,mergedBy,mergeCommit")[1])
    assert view == {
        "state": "MERGED",
        "mergedBy": {"login": "noah"},
        "mergeCommit": {"oid": hub.server.repository.resolve_ref("main")},
    }


def test_the_api_answers_in_the_form_of_github(run: Run, tmp_path: Path) -> None:
    create(run)
    at = "repos/acme/mlops"
    code, out, _ = run("api", f"{at}/issues/1/comments", "-F", "body=@body.md")
    assert (code, json.loads(out)["body"]) == (0, "The body\n")
    (tmp_path / "patch.json").write_text('{"body": "New"}', encoding="utf-8")
    assert (
        run("api", "--method", "PATCH", f"{at}/issues/comments/1", "--input", "patch.json", "--jq", ".body")[1] == "New"
    )
    found = json.loads(run("api", "repos/{owner}/{repo}/issues/1/comments?per_page=100", "--paginate")[1])
    assert [(c["id"], c["user"]["login"], c["body"]) for c in found] == [(1, "maria", "New")]
    assert json.loads(run("api", f"/{at}/pulls/1/files")[1]) == [{"filename": "x", "status": "added"}]
    assert run("api", f"{at}/pulls/1", "--jq", ".head.ref")[1] == "feature"
    assert json.loads(run("api", f"{at}/pulls/1/reviews")[1]) == []
    head = run("pr", "view", "1", "--json", "headRefOid", "--jq", ".headRefOid")[1]
    assert run("api", f"{at}/commits/{head}/pulls", "--jq", ".[].number")[1] == "1"
    assert run("api", f"{at}/commits/{'0' * 40}/pulls")[1] == "[]"
    rules = json.loads(run("api", f"{at}/branches/main/protection")[1])
    assert rules["required_status_checks"]["contexts"] == ["test"]
    assert rules["required_pull_request_reviews"]["required_approving_review_count"] == 1
    names = json.loads(run("api", f"{at}/environments")[1])["environments"]
    assert [(e["name"], len(e["protection_rules"])) for e in names] == [("dev", 0), ("prod", 1)]
    assert run("api", f"{at}/rulesets", "--jq", ".[].name")[1] == "main"
    assert "pull_request" in run("api", f"{at}/rulesets/1")[1]
    assert run("api", f"{at}/issues/9/comments")[0] == 1
    assert "Not Found" in run("api", "repos/other/thing/rulesets")[2]
    assert "does not implement GET repos/acme/mlops/actions/caches" in run("api", f"{at}/actions/caches")[2]


def test_workflows_can_be_started_and_runs_listed(run: Run, hub: Hub) -> None:
    assert "Required input 'model' not provided" in run("workflow", "run", "train.yml")[2]
    assert "Unexpected inputs" in run("workflow", "run", "train.yml", "-f", "modle=x")[2]
    assert "not in the list" in run("workflow", "run", "Train", "-f", "model=x", "-f", "size=xl")[2]
    assert "could not find any workflows" in run("workflow", "run", "other.yml")[2]
    assert run("workflow", "run", "train.yml", "-f", "model=m")[0] == 0
    hub.pump()
    fields = "databaseId,workflowName,status,conclusion,event,headBranch,attempt"
    _, out, _ = run("run", "list", "--workflow", "train.yml", "--json", fields)
    assert json.loads(out) == [
        {
            "databaseId": 1,
            "workflowName": "Train",
            "status": "completed",
            "conclusion": "success",
            "event": "workflow_dispatch",
            "headBranch": "main",
            "attempt": 1,
        }
    ]
    (job,) = json.loads(run("run", "view", "1", "--json", "jobs")[1])["jobs"]
    assert (job["name"], job["conclusion"], job["steps"][0]["number"]) == ("a", "success", 1)
    assert run("run", "list")[1].startswith("completed\tsuccess\tTrain\tTrain\tmain\tworkflow_dispatch\t1\t")
    assert all(line.startswith("a\t") for line in run("run", "view", "1", "--log")[1].splitlines())


def test_dispatches_report_external_events(run: Run, hub: Hub) -> None:
    code, out, err = run(
        *("api", "repos/acme/mlops/dispatches", "-f", "event_type=drift"),
        *("-f", "client_payload[model]=m", "-F", "client_payload[count]=3"),
    )
    assert (code, out, err) == (0, "", "")
    event = hub.server.state.read()["events"][-1]
    assert (event["action"], event["payload"]["client_payload"]) == ("drift", {"model": "m", "count": 3})
    assert event["sha"] == hub.server.repository.resolve_ref("main")


UNKNOWN: tuple[tuple[str, ...], ...] = (
    ("pr", "create", "--title", "x", "--head", "h", "--base", "main"),
    ("pr", "create", "--title", "x", "--body", "y", "--body-file", "body.md", "--head", "h"),
    ("pr", "create", "--title", "x", "--body", "y", "--head", "h", "--draft"),
    ("pr", "merge", "1"),
    ("pr", "merge", "1", "--squash", "--merge"),
    ("pr", "merge", "1", "--squash", "--admin"),
    ("pr", "merge", "1", "--auto", "--squash"),
    ("pr", "list", "--limit", "0"),
    ("pr", "comment", "1"),
    ("pr", "review", "1", "--request-changes"),
    ("run", "view"),
    ("run", "view", "ci"),
    ("pr", "view", "1", "--json", "nope"),
    ("pr", "list", "--json", "number", "--jq", "map(.number)"),
    ("pr", "list", "--state", "draft", "--json", "number"),
    ("pr", "review", "1"),
    ("pr", "checkout", "1"),
    ("repo", "delete"),
    ("secret", "list"),
    ("api",),
    ("api", "repos/acme/mlops/rulesets", "--hostname", "x"),
    ("api", "repos/acme/mlops/rulesets?ref=x"),
    ("auth", "token"),
    (),
)


def test_unknown_arguments_exit_with_code_2(run: Run) -> None:
    create(run)
    for arguments in UNKNOWN:
        code, out, err = run(*arguments)
        assert (arguments, code, out) == (arguments, 2, "")
        assert err.startswith("gh (of the laptop): ")


def test_an_unknown_flag_or_command_is_answered_with_those_that_are_known(run: Run) -> None:
    err = run("pr", "merge", "1", "--squash", "--admin")[2]
    assert "unknown flag: --admin; gh pr merge knows here: --squash/-s --merge/-m --delete-branch/-d --repo/-R" in (
        err.replace(", ", " ")
    )
    assert "known here: pr create, pr list, pr view" in run("pr", "chekcs", "1")[2]
    assert "known here: api, auth, issue, pr, run, secret, workflow" in run("gist", "list")[2]


@pytest.mark.parametrize("asked", [("--help",), ("help",), ("pr", "-h"), ("run", "view", "--help"), ("help", "api")])
def test_help_needs_neither_a_token_nor_a_repository(
    asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GH_TOKEN", "GITHUB_TOKEN", "MLOPS_GITHUB"):
        monkeypatch.delenv(name, raising=False)
    assert gh.main(asked) == 0
    words = " ".join(word for word in asked if word not in ("--help", "-h", "help"))
    assert f"gh {words}" in capsys.readouterr().out


def test_a_pull_request_can_be_opened_from_the_branch_and_its_commits(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    monkeypatch.chdir(clone)
    assert run("pr", "create", "--fill") == (0, "https://github.localhost/acme/mlops/pull/1", "")
    assert json.loads(run("pr", "view", "--json", "title,body,headRefName")[1]) == {
        "title": "Subject",
        "body": "",
        "headRefName": "feature",
    }
    git(clone, "switch", "--quiet", "main")
    push(clone, "faster-training", {"y": "1"}, "Use fewer trees\n\nThey are enough.")
    assert run("pr", "create", "-f", "-t", "My title", "-l", "a,b")[0] == 0
    assert json.loads(run("pr", "view", "faster-training", "--json", "title,body,labels")[1]) == {
        "title": "My title",
        "body": "They are enough.",
        "labels": [{"name": "a"}, {"name": "b"}],
    }
    push(clone, "two-commits", {"z": "1"}, "First")
    push(clone, "two-commits", {"z": "2"}, "Second")
    assert run("pr", "create", "--fill", "--base=faster-training")[0] == 0
    view = json.loads(run("pr", "view", "--json", "title,body")[1])
    assert view == {"title": "Two commits", "body": "- First\n- Second\n"}
    assert run("pr", "create", "--title", "x", "--body", "y", "--head", "gone")[2].startswith("gh: ")
    git(clone, "switch", "--quiet", "--detach")
    assert "could not determine the current branch" in run("pr", "view")[2]
    monkeypatch.chdir(tmp_path)
    assert run("pr", "view", "other")[2] == 'gh: no pull requests found for branch "other"'


def test_the_changes_and_checks_of_a_pull_request_are_shown(run: Run, hub: Hub) -> None:
    create(run)
    assert run("pr", "diff", "1", "--name-only")[1] == "x"
    assert (
        run("pr", "diff", "https://github.localhost/acme/mlops/pull/1")[1].splitlines()[-1]
        == "\\ No newline at end of file"
    )
    assert "+1" in run("pr", "diff", "#1")[1].splitlines()
    assert run("pr", "checks", "1") == (1, "", "gh: no checks reported on the 'feature' branch")
    head = hub.pull_request(1).head_sha

    def report(**conclusions: str) -> None:
        with hub.server.change() as state:
            state["checks"][head] = {
                name: {"conclusion": each, "workflow": "ci", "run": 1} for name, each in conclusions.items()
            }

    at = "https://github.localhost/acme/mlops/actions/runs/1"
    report(test="", other="success")
    code, out, _ = run("pr", "checks", "1")
    assert (code, out.splitlines()) == (8, [f"other\tpass\t0s\t{at}\t", f"test\tpending\t0s\t{at}"])
    report(test="success", other="failure")
    assert run("pr", "checks", "1")[0] == 1
    assert run("pr", "checks", "1", "--required")[0] == 0
    assert json.loads(run("pr", "checks", "1", "--required", "--json", "name,state,bucket")[1]) == [
        {"name": "test", "state": "SUCCESS", "bucket": "pass"}
    ]


def test_a_closed_pull_request_can_be_opened_again_unless_its_branch_is_gone(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    create(run)
    assert run("pr", "reopen", "1")[2].endswith("The pull request is open (HTTP 422)")
    assert run("pr", "close", "1", "--comment", "Not now")[0] == 0
    newest = push(tmp_path / "clone", "feature", {"x": "2"}, "More")
    assert run("pr", "reopen", "1", "-c", "Now") == (0, "", "")
    pull = hub.pull_request(1)
    assert (pull.state, pull.head_sha) == ("OPEN", newest), "it shows what was pushed in between"
    assert [each["body"] for each in hub.server.comments(1)] == ["Not now", "Now"]
    assert hub.server.state.read()["events"][-1]["action"] == "reopened"
    run("pr", "close", "1", "--delete-branch")
    assert hub.server.repository.resolve("refs/heads/feature") is None
    assert "has been deleted" in run("pr", "reopen", "1")[2]
    git(tmp_path / "clone", "commit", "--quiet", "--amend", "--message", "Rewritten")
    git(tmp_path / "clone", "push", "--quiet", "origin", "feature")
    assert "was force-pushed or recreated" in run("pr", "reopen", "1")[2]


def test_a_merge_can_delete_its_branch(run: Run, hub: Hub) -> None:
    create(run)
    run("pr", "review", "1", "--request-changes", "--body", "Why?", as_="noah")
    assert "noah requests changes" in run("pr", "merge", "1", "--squash", as_="noah")[2]
    run("pr", "review", "1", "--approve", as_="noah")
    with hub.server.change() as state:
        state["checks"][hub.pull_request(1).head_sha] = {"test": {"conclusion": "success", "workflow": "ci", "run": 1}}
    assert run("pr", "merge", "1", "-s", "-d", as_="noah") == (0, "", "")
    assert hub.pull_request(1).state == "MERGED"
    assert hub.server.repository.resolve("refs/heads/feature") is None


FAILS = """
name: Fails
on: workflow_dispatch
jobs:
  good: {runs-on: ubuntu-latest, steps: [{name: fine, run: echo all is well}]}
  bad:
    runs-on: ubuntu-latest
    steps:
      - {name: before, run: echo first}
      - {name: breaks, run: "echo '::error file=a.py,line=3::it is broken'; exit 3"}
      - {name: after, run: echo never}
"""


def test_a_run_is_shown_with_its_jobs_and_the_log_of_what_failed(tmp_path: Path, run: Run, hub: Hub) -> None:
    clone = tmp_path / "clone"
    push(clone, "failing", {".github/workflows/fails.yml": FAILS})
    hub.dispatch("maria", "fails.yml", ref="failing")
    (ended,) = hub.pump()
    number = str(ended.number)
    code, out, _ = run("run", "view", number)
    assert code == 0
    assert out.splitlines()[0] == f"X failing Fails · {number} (attempt 1)"
    lines = out.splitlines()
    jobs = lines[lines.index("JOBS") + 1 : lines.index("ANNOTATIONS") - 1]
    assert [line.rpartition(" in ")[0] or line for line in jobs] == [
        *("✓ good", "X bad", "  ✓ before", "  X breaks", "  - after")
    ]
    assert "X it is broken" in lines and "bad: a.py#3" in lines
    assert f"gh run view {number} --log-failed" in out
    failed = run("run", "view", number, "--log-failed")[1].splitlines()
    assert all(line.startswith("bad\tbreaks\t") for line in failed)
    assert failed[-1] == "bad\tbreaks\t##[error]Process completed with exit code 3."
    logged = run("run", "view", number, "--log")[1].splitlines()
    assert "good\tfine\tall is well" in logged and "bad\tbefore\tfirst" in logged
    assert not [line for line in logged if line.startswith("bad\tafter")], "it did not run"
    assert run("run", "view", number, "--exit-status")[0] == 1
    code, out, _ = run("run", "watch", number, "--exit-status")
    assert (code, out.splitlines()[-1]) == (1, f"Run Fails ({number}) completed with 'failure'")
    assert run("run", "watch")[2] == "gh: found no in progress runs to watch"


def test_a_run_can_be_watched_until_it_ends(run: Run, hub: Hub) -> None:
    hub.dispatch("maria", "train.yml", inputs={"model": "a"})
    with hub.serving():
        hub.wait("Train")
        assert run("run", "watch", "1")[1].splitlines()[-1] == "Run Train (1) completed with 'success'"
    assert run("workflow", "list")[1] == "Train\tactive\t1"
    assert json.loads(run("workflow", "list", "--all", "--json", "name,path,state")[1]) == [
        {"name": "Train", "path": ".github/workflows/train.yml", "state": "active"}
    ]


def test_permissions_limit_the_token_of_a_job(run: Run) -> None:
    job = Actor(BOT, "job", {"contents": "read"}, run=1)
    code, _, err = create(run, as_=job)
    assert code == 1
    assert "Resource not accessible by integration (HTTP 403)" in err
    assert "add `pull-requests: write` to the job's `permissions`" in err
    may = Actor(BOT, "job", {"pull-requests": "write"}, run=1)
    assert "GitHub Actions is not permitted to create or approve pull requests" in create(run, as_=may)[2]
    assert "not accessible" in run("api", "repos/acme/mlops/branches/main/protection", as_=may)[2]
    assert "`actions: write`" in run("workflow", "run", "train.yml", "-f", "model=x", as_=may)[2]


def test_without_a_token_or_a_repository_it_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("auth", "status")[1].splitlines()[1] == "  ✓ Logged in as maria (GH_TOKEN)"
    monkeypatch.setenv("GH_TOKEN", "ghp_wrong")
    assert gh.main(["pr", "list"]) == 1
    assert "Bad credentials" in capsys.readouterr().err
    monkeypatch.setenv("GH_TOKEN", "")
    assert gh.main(["pr", "list"]) == 4
    monkeypatch.delenv("GH_REPO")
    assert "not a git repository" in run("pr", "list")[2]
    assert "Could not resolve to a Repository" in run("pr", "list", "-R", "acme/other")[2]


def test_the_executable_works_for_a_user(hub: Hub, tmp_path: Path) -> None:
    done = subprocess.run(
        ["gh", "auth", "status"], env=hub.environ("noah"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "noah" in done.stdout) == (0, True)


def test_an_ended_run_is_run_again_by_an_actor_who_may(hub: Hub, run: Run) -> None:
    hub.dispatch("maria", "train.yml", inputs={"model": "a"})
    (first,) = hub.pump()
    reader = Actor("mlops[bot]", "app", {"actions": "read"})
    assert run("run", "rerun", str(first.number), "--failed", as_=reader)[0] == 1
    writer = Actor("mlops[bot]", "app", {"actions": "write"})
    code, out, _ = run("run", "rerun", str(first.number), "--failed", as_=writer)
    assert (code, out) == (0, f"✓ Requested rerun of run {first.number}")
    assert run("run", "rerun", str(first.number))[2].startswith(f"gh: run {first.number} is queued")
    (again,) = hub.pump()
    assert (again.number, again.conclusion) == (first.number, "success")
    fields = json.loads(run("run", "list", "--json", "databaseId,attempt,status,conclusion,createdAt")[1])
    assert [(one["databaseId"], one["attempt"], one["status"]) for one in fields] == [(first.number, 2, "completed")]
    assert run("run", "rerun", "99")[2] == "gh: there is no run 99"


def test_a_run_is_not_run_again_without_end(hub: Hub, run: Run) -> None:
    hub.dispatch("maria", "train.yml", inputs={"model": "a"})
    (first,) = hub.pump()
    with hub.server.change() as state:
        state["runs"][str(first.number)]["attempt"] = 51
    assert "was run again 50 times, which is GitHub's limit" in run("run", "rerun", str(first.number))[2]


def test_a_pull_request_says_whether_it_comes_from_a_fork(run: Run) -> None:
    create(run)
    assert json.loads(run("pr", "list", "--json", "isCrossRepository")[1]) == [{"isCrossRepository": False}]


def test_the_api_lists_pull_requests_and_the_runs_of_a_commit_with_their_repository(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    create(run)
    (pull,) = json.loads(run("api", "repos/acme/mlops/pulls?per_page=100", "--paginate")[1])
    assert (pull["head"]["repo"]["full_name"], pull["base"]["ref"]) == ("acme/mlops", "main")
    hub.dispatch("maria", "train.yml", inputs={"model": "a"})
    (one,) = hub.pump()
    path = "repos/acme/mlops/actions/workflows/train.yml/runs?per_page=100&page=1&head_sha="
    (found,) = json.loads(run("api", path + one.head_sha)[1])["workflow_runs"]
    assert (found["id"], found["run_attempt"], found["conclusion"]) == (one.number, 1, "success")
    assert found["head_repository"]["full_name"] == "acme/mlops"
    assert json.loads(run("api", path + pull["head"]["sha"])[1])["workflow_runs"] == []


def test_an_issue_is_opened_by_a_job_and_read_commented_and_closed_by_people(run: Run, hub: Hub) -> None:
    job = Actor(BOT, "job", {"issues": "write"})
    create(run)
    made = run("api", "repos/acme/mlops/issues", "-f", "title=m1 in prod: drift", "-f", "body=why", as_=job)
    opened = json.loads(made[1])
    assert (opened["number"], opened["user"]["type"], opened["state"]) == (2, "Bot", "open")
    listed = json.loads(run("api", "repos/acme/mlops/issues?per_page=100", "--paginate")[1])
    assert [(one["number"], "pull_request" in one) for one in listed] == [(2, False), (1, True)]
    assert run("issue", "comment", "2", "--body", "I look")[0] == 0
    assert json.loads(run("api", "repos/acme/mlops/issues/2/comments")[1])[0]["body"] == "I look"
    assert run("issue", "list")[1] == "2\tOPEN\tm1 in prod: drift"
    assert "why" in run("issue", "view", "2", "--comments")[1]
    assert run("issue", "close", "2", "--comment", "Done")[0] == 0
    assert run("issue", "list")[1] == ""
    assert run("issue", "view", "9")[0] == 1


@pytest.mark.parametrize("actor", [Actor("mlops[bot]", "app", {"contents": "write"}), Actor(BOT, "job", {})])
def test_an_issue_needs_the_permission_for_issues(run: Run, actor: Actor) -> None:
    code, _, said = run("api", "repos/acme/mlops/issues", "-f", "title=x", "-f", "body=y", as_=actor)
    assert code == 1 and "`issues: write`" in said
