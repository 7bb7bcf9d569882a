"""The command line: how it answers people, and that it starts quickly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import VERBS, mlops
from tests.clones import commit_all, make_repository
from tests.pipelines.promotion.promotion_project import DATASET, MODEL
from tests.sample_project import PROJECT, ROOT


def run(*arguments: str, cwd: Path = PROJECT, **environ: str) -> subprocess.CompletedProcess[str]:
    import os

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLOPS_", "KUBE"))}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_verb_explains_itself() -> None:
    listed = CliRunner().invoke(mlops, ["--help"]).output
    for verb in VERBS:
        assert f"\n  {verb} " in listed
        done = CliRunner().invoke(mlops, [verb, "--help"])
        assert done.exit_code == 0, done.output
        assert "Usage:" in done.output


def test_an_error_is_printed_on_stderr_without_a_traceback_and_with_what_to_do(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no Pulumi.yaml in ")
    assert "fix: run this inside a clone" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_declarations_are_all_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").touch()
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {a: [}\n")
    (tmp_path / "data-contracts").mkdir()
    (tmp_path / "data-contracts" / "x.odcs.yaml").write_text("kind: Nothing\n")
    done = run("check", cwd=tmp_path)
    assert done.returncode == 1
    assert "Pulumi.dev.yaml:1" in done.stderr
    assert "x.odcs.yaml:1: kind: expected 'DataContract', found \"Nothing\"" in done.stderr


def test_since_a_commit_a_contract_may_take_nothing_from_its_consumers(tmp_path: Path) -> None:
    contract = make_repository(tmp_path).root / "data-contracts" / "diabetes-patients.odcs.yaml"
    said = contract.read_text()
    contract.write_text(said.replace("maximum: 120", "maximum: 110"))
    commit_all(tmp_path / "clone", "Narrow")
    done = run("check", "--base", "HEAD^", cwd=tmp_path / "clone")
    assert "data-contracts/diabetes-patients.odcs.yaml breaks nothing." in done.stdout, done.stderr
    contract.write_text(said)
    commit_all(tmp_path / "clone", "Widen")
    done = run("check", "--base", "HEAD^", cwd=tmp_path / "clone")
    assert done.returncode == 1
    assert "data contract: data-contracts/diabetes-patients.odcs.yaml: age: maximum was 110" in done.stderr


def test_a_contract_may_go_only_after_its_consumers_were_told(tmp_path: Path) -> None:
    project = make_repository(tmp_path)
    contract = project.contract_file(DATASET)
    shutil.rmtree(project.models_folder / MODEL)
    said = contract.read_text()
    contract.unlink()
    commit_all(project.root, "Remove")
    done = run("check", "--base", "HEAD^", cwd=project.root)
    assert done.returncode == 1
    assert f"data-contracts/{contract.name}: the contract was deleted" in done.stderr
    assert "merge `status: deprecated` first" in done.stderr
    contract.write_text(said.replace("status: active", "status: deprecated"))
    commit_all(project.root, "Deprecate")
    contract.unlink()
    commit_all(project.root, "Remove")
    done = run("check", "--base", "HEAD^", cwd=project.root)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("check", "--base", "HEAD~3", cwd=project.root)
    assert done.returncode == 1, "nobody was told before all of that"


@pytest.mark.parametrize("verb", ["up", "preview", "deploy", "output"])
def test_without_a_running_local_target_a_command_says_how_to_start_it(verb: str, tmp_path: Path) -> None:
    done = run(verb, "--env", "dev", MLOPS_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "the laptop is not running" in done.stderr
    assert "mlops laptop start" in done.stderr


def test_removing_an_environment_must_be_confirmed_by_its_name() -> None:
    done = run("destroy", "--env", "prod", "--confirm", "production")
    assert done.returncode == 1
    assert "--confirm prod" in done.stderr


def test_images_are_pinned_by_digest_only(tmp_path: Path) -> None:
    done = run("images", "pin", "--env", "dev", "--training", "latest")
    assert done.returncode == 1
    assert "named by its digest" in done.stderr


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, pipelines.cli.main as m; "
        "heavy = {'pandas', 'sklearn', 'pulumi', 'pulumi_aws', 'duckdb', 'pyiceberg', 'moto', 'boto3', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
