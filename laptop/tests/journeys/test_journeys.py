"""The committed workflows, run by the laptop's GitHub, each job with the role that it signs in with.

These tests cover what `mlops demo` does not show: the other workflows, and what they refuse. To save time, all tests
share one story: the life of an environment from its first image to its removal.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from laptop import stack_operations
from laptop.cli.github import attach
from laptop.demo.material import DATASET, MODEL, keep_first_environment, own_clone
from laptop.github.forge.actors import person
from laptop.github.forge.merge_rules import PullRequestRecord
from laptop.github.hosting import APPROVER, AUTHOR, REPOSITORY, host
from laptop.github.hub import Hub
from laptop.github.runner.results import JobResult, WorkflowRun
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import own_home, start_laptop
from pipelines.declarations.project import Project
from pipelines.github.release_owners import with_release_owners
from tests.sample_project import ROOT, declare_as_forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

AUDIT, TRAINING = "41 5 * * *", "17 */6 * * *"
RELEASE = f"models/{MODEL}/releases/dev.yaml"
LAKE = "mlops-dev-lake-123456789012"


@dataclass
class Story:
    """Record of the journey so far.

    Attributes:
        hub: the laptop's GitHub.
        source: what it hosts, as its first commit.
        clone: of a contributor.
        acts: name → the completed runs of an act.
        pulls: head → pull request, as it was opened.
        comments: head → its comments after it was judged.
        blockers: head → why it could not be merged.
        queued: the commit of the trial merge.
        buckets: the names of the account's buckets at the end.
    """

    hub: Hub
    source: Path
    clone: Path
    acts: dict[str, list[WorkflowRun]] = field(default_factory=dict)
    pulls: dict[str, PullRequestRecord] = field(default_factory=dict)
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    blockers: dict[str, list[str]] = field(default_factory=dict)
    queued: str = ""
    buckets: tuple[str, ...] = ()

    def play(self, act: str) -> None:
        """Run the workflows that are due."""
        self.acts[act] = self.hub.pump()
        for pull in self.hub.pull_requests():
            if pull.head not in self.pulls:
                self.pulls[pull.head] = pull
                self.comments[pull.head] = self.hub.server.comments(pull.number)
                self.blockers[pull.head] = self.hub.blockers(pull.number)

    def branch(self, name: str, change: Callable[[Path], None]) -> None:
        """Commit a change on a new branch."""
        git(self.clone, "fetch", "--quiet")
        git(self.clone, "switch", "--quiet", "--force-create", name, "origin/main")
        change(self.clone)
        git(self.clone, "commit", "--quiet", "--all", "--message", name)

    def run(self, act: str, workflow: str, *, event: str = "", of: str = "") -> WorkflowRun:
        """Return the only run of a workflow in an act, of an event and a pull request if they are given."""
        (found,) = [
            run
            for run in self.acts[act]
            if run.workflow == workflow
            and event in ("", run.event)
            and (not of or run.head_sha == self.pulls[of].head_sha)
        ]
        return found


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def edit(name: str, pattern: str, by: str) -> Callable[[Path], None]:
    """Replace the first match of a pattern in a file."""

    def change(folder: Path) -> None:
        text, found = re.subn(pattern, by, (folder / name).read_text(), count=1)
        assert found, f"{name} has no {pattern}"
        (folder / name).write_text(text)

    return change


def log(job: JobResult) -> str:
    assert job.log is not None
    return job.log.read_text()


def ended(job: JobResult, step: str) -> str:
    """Return the conclusion of the step whose name contains these words."""
    (found,) = [each.conclusion for each in job.steps if step in each.name]
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("journeys")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        yield play_all(begin(project, home, folder, patch))


def one_environment(folder: Path) -> Project:
    """Copy this repository's code with the sample declarations of `dev` only; other environments would add nothing."""
    project = keep_first_environment(Project(declare_as_forked(own_clone(Project(ROOT), folder).root)))
    # Every fork changes these.
    owners = with_release_owners("* @initech/platform @milton\n", ["dev"])
    (folder / ".github" / "CODEOWNERS").write_text(owners)
    for name in ("Pulumi.dev.yaml", "infra/bootstrap/Pulumi.account.yaml"):
        (folder / name).write_text((folder / name).read_text().replace("eu-west-1", "us-east-2"))
    # These tests are running already; it is enough that the workflow calls make.
    for target in ("lint", "typecheck", "spark", "test-selected"):
        edit("Makefile", rf"(?m)^{target}: .*\n(?:\t.*\n)+", f"{target}: setup\n\t@echo the tests would run\n")(folder)
    return project


def begin(project: Project, home: Path, folder: Path, patch: pytest.MonkeyPatch) -> Story:
    """Provision `dev` without images, then make it disposable on main."""
    patch.chdir(project.root)
    running = start_laptop(home, project.root, patch)
    here = LaptopTarget(project)
    for name, value in running.environ().items():
        patch.setenv(name, value)
    roles = stack_operations.bootstrap(project.root, home, REPOSITORY)
    edit("Pulumi.dev.yaml", "disposable: true", "disposable: false")(project.root)
    here.apply("up", "dev")
    edit("Pulumi.dev.yaml", "disposable: false", "disposable: true")(project.root)

    hub = attach(here, on_step=lambda step: None)
    host(hub, project.root, region=running.region, roles=roles)
    return Story(hub, project.root, hub.clone(folder / "clone", AUTHOR))


def client(service: str) -> Any:
    """Return a client with all permissions."""
    import boto3

    return boto3.Session().client(service)


def play_all(story: Story) -> Story:
    hub = story.hub

    # Pull requests, refusals and requests.
    story.branch("outside", edit(RELEASE, "bundle: .*", "bundle: sha256:" + "ab" * 32))
    hub.server.open_from_fork("mallory", "mallory/mlops", story.clone, "outside", title="Mine")
    story.branch("breaks", break_a_contract_and_a_rule)
    git(story.clone, "push", "--quiet", "origin", "breaks")
    story.queued = hub.server.try_merge(person(AUTHOR), hub.open(AUTHOR, "breaks", "Widen").number)
    hub.repository_dispatch(AUTHOR, "drift", {"model": MODEL, "environment": "dev", "reason": "psi of bmi is 0.4"})
    hub.tick(TRAINING)
    for confirmation in ("de", "dev"):
        hub.dispatch(AUTHOR, "teardown.yml", inputs={"environment": "dev", "confirmation": confirmation})
    story.play("requested")

    hub.dispatch(AUTHOR, "images.yml")
    story.play("built")

    # Nothing was ingested, so training waits.
    hub.approve(APPROVER, story.pulls["pin/dev"].number)
    hub.merge(APPROVER, story.pulls["pin/dev"].number)
    story.play("merged")

    client("s3").put_bucket_versioning(Bucket=LAKE, VersioningConfiguration={"Status": "Suspended"})
    hub.tick(AUDIT)
    hub.dispatch(AUTHOR, "recheck.yml")
    story.play("audited")
    hub.dispatch(AUTHOR, "teardown.yml", inputs={"environment": "dev", "confirmation": "dev"})
    story.play("removed")
    story.buckets = tuple(bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"])
    return story


def break_a_contract_and_a_rule(folder: Path) -> None:
    edit(f"data-contracts/{DATASET}.odcs.yaml", "maximum: 120", "maximum: 130")(folder)
    edit("infra/components/key.py", "DELETION_WINDOW_DAYS = 30", "DELETION_WINDOW_DAYS = 29")(folder)


# --- a pull request ---------------------------------------------------------------------------------------------------


def test_a_contract_change_that_breaks_consumers_fails_a_required_check(story: Story) -> None:
    job = story.run("requested", "ci", event="pull_request", of="breaks").job("test")
    assert (ended(job, "mlops validate"), ended(job, "make test")) == ("failure", "skipped")
    assert f"data contract: data-contracts/{DATASET}.odcs.yaml: age: maximum was 120, is 130" in log(job)
    assert "the required check 'test' ended in failure" in story.blockers["breaks"]


def test_the_review_comment_names_broken_contracts_and_failed_previews(story: Story) -> None:
    job = story.run("requested", "ci", event="pull_request", of="breaks").job("preview")
    assert ended(job, "mlops ci review") == "failure"
    (comment,) = story.comments["breaks"]
    assert comment["author"] == "github-actions[bot]"
    head, _, folded = comment["body"].partition("<details>")
    assert f"❌ data-contracts/{DATASET}.odcs.yaml: breaking: age: maximum was 120, is 130" in head
    assert "**dev**: ❌ the preview failed: 2 policy violation(s)" in head
    assert "has a deletion window of 29 days" in head
    assert "~ deletionWindowInDays: 30 => 29" in folded


def test_a_merge_queue_runs_the_required_checks_without_commenting(story: Story) -> None:
    checks = story.hub.server.checks(story.queued)
    assert {name: check["conclusion"] for name, check in checks.items()} == {
        "test": "failure",
        "gates": "success",
        "preview": "skipped",
    }
    assert "age: maximum was 120" in log(story.run("requested", "ci", event="merge_group").job("test"))


def test_a_pull_request_from_a_fork_gets_no_role_and_cannot_release(story: Story) -> None:
    ci = story.run("requested", "ci", event="pull_request", of="outside")
    assert (ci.job("test").conclusion, ci.job("preview").conclusion) == ("success", "skipped")
    gates = story.run("requested", "promote", event="pull_request", of="outside").job("gates")
    assert (ended(gates, "actions/use-environment"), ended(gates, "mlops ci judge")) == ("failure", "skipped")
    assert "assumed" not in log(gates)
    assert "Resource not accessible by integration" in log(gates)
    assert "the required check 'gates' ended in failure" in story.blockers["outside"]


# --- images and training ----------------------------------------------------------------------------------------------


def test_images_are_built_and_an_app_proposes_to_pin_them(story: Story) -> None:
    run = story.run("built", "images")
    assert run.conclusion == "success"
    assert {job.name for job in run.jobs} == {"build training", "build serving", "pin"}
    pull = story.pulls["pin/dev"]
    assert (pull.author, pull.title) == ("mlops[bot]", "Pin images in dev")
    assert story.hub.server.files(pull) == ("Pulumi.dev.yaml",)
    digests = local_digests(Project(story.source))
    assert f"training: `{digests.training}`" in pull.body
    pinned = (story.hub.server.repository.read_file(pull.head_sha, "Pulumi.dev.yaml") or b"").decode()
    assert f"images: {{training: {digests.training}, serving: {digests.serving}}}" in pinned


def test_a_pull_request_of_an_app_is_checked_and_previewed_like_any_other(story: Story) -> None:
    assert story.run("built", "ci", of="pin/dev").conclusion == "success"
    assert story.run("built", "promote", of="pin/dev").conclusion == "success"
    assert [text for text in story.blockers["pin/dev"] if "check" in text] == []
    (comment,) = story.comments["pin/dev"]
    assert comment["body"].startswith("<!-- mlops:pins dev -->\n### ✅ training and serving may be pinned in dev")
    assert f"kubernetes:batch/v1:CronJob  train-{MODEL}  create" in comment["body"]


def test_pinning_images_deploys_dev_once_and_then_trains_with_them(story: Story) -> None:
    deploy_, train = story.run("merged", "deploy"), story.run("merged", "train")
    assert deploy_.conclusion == "success"
    assert train.job("select").outputs["models"] == f'["{MODEL}"]'
    applied = [log(run.job("deploy dev")) for run in (deploy_, train)]
    assert sorted("CronJob" in text for text in applied) == [False, True], "only one of the two applies it"
    assert not any("is working on stack" in text for text in applied), "on AWS, the second would have failed"
    trained = train.job(f"train {MODEL}")
    assert trained.conclusion == "success"
    assert f"training of {MODEL} waits for data: {DATASET} has no rows yet" in log(trained)
    assert ended(trained, "mlops propose") == "skipped"
    assert "has no rows yet" in trained.summary


def test_drift_and_the_schedule_start_training_which_waits_for_an_image(story: Story) -> None:
    respond = story.run("requested", "respond")
    assert respond.conclusion == "success"
    assert f"started the workflow train for {MODEL}" in log(respond.job("respond"))
    for event, actor in (("workflow_dispatch", "mlops[bot]"), ("schedule", "acme")):
        run = story.run("requested", "train", event=event)
        assert run.actor == actor
        assert run.job("select").outputs["models"] == f'["{MODEL}"]'
        assert run.job("deploy dev").conclusion == "skipped", "nothing was pinned, so there is nothing to deploy"
        assert run.job(f"train {MODEL}").conclusion == "success"
        assert "has no training image" in log(run.job(f"train {MODEL}"))


def test_a_recheck_leaves_pull_requests_that_pass_and_those_of_forks(story: Story) -> None:
    job = story.run("audited", "recheck").job("recheck")
    assert job.conclusion == "success", log(job)
    breaks = story.pulls["breaks"].number
    assert [line.strip() for line in log(job).splitlines() if "pull request " in line] == [
        f"pull request {breaks}: skipped: the gates pass"
    ]


# --- audit and teardown -----------------------------------------------------------------------------------------------


def test_an_audit_lists_only_what_was_changed_by_hand(story: Story) -> None:
    job = story.run("audited", "audit").job("audit dev")
    assert job.conclusion == "failure"
    assert [line for line in log(job).splitlines() if line.startswith("- ")] == [
        "- aws:s3/bucketVersioning:BucketVersioning lake: drifted "
        '(~ versioningConfiguration.status: "Enabled" => "Suspended")'
    ]


def test_an_environment_is_removed_only_when_confirmed_and_unprotected(story: Story) -> None:
    unconfirmed, protected = [run.job("teardown dev") for run in story.acts["requested"] if run.workflow == "teardown"]
    assert "removing dev is not confirmed" in log(unconfirmed)
    assert unconfirmed.conclusion == "failure"
    assert "is protected and would be deleted" in log(protected)
    assert "  delete\n" not in log(protected), "nothing is deleted before the check"
    assert protected.conclusion == "failure"
    removed = story.run("removed", "teardown")
    assert removed.conclusion == "success", log(removed.job("teardown dev"))
    assert {name for name in story.buckets if "-dev-" in name} == set()
    assert {name for name in story.buckets if "-account-" in name} != set()


# --- permissions -----------------------------------------------------------------------------------------------------


def test_each_workflow_signs_in_with_its_role_and_never_logs_the_key_of_the_app(story: Story) -> None:
    roles: dict[str, set[str]] = {}
    key = story.hub.runner.vault.secrets("dev")["APP_PRIVATE_KEY"]
    for run in story.hub.runs():
        for job in run.jobs:
            if job.log is not None:
                assert key not in log(job)
                found = re.findall(r"assumed arn:aws:iam::\d+:role/bootstrap/(\S+)", log(job))
                roles.setdefault(run.workflow, set()).update(found)
    looking, changing = {"mlops-preview"}, {"mlops-deploy-dev"}
    assert roles == {
        "ci": looking,
        "promote": looking,  # the pull request that pins images; the only release came from a fork
        "audit": looking,
        "recheck": set(),
        "images": {"mlops-images"},
        **dict.fromkeys(("deploy", "train", "respond", "teardown"), changing),
    }


def test_only_environments_that_main_deploys_to_have_the_key_of_the_app(story: Story) -> None:
    vault = story.hub.runner.vault
    assert [sorted(vault.secrets(name)) for name in ("", "preview", "dev")] == [[], [], ["APP_PRIVATE_KEY"]]
