"""The command line: help, suggestions, errors, and start-up."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from pipelines.cli import environments
from pipelines.cli.commands import Verb, first_line
from pipelines.cli.environments import IMAGES_RENAMED
from pipelines.cli.main import RENAMED, VERBS, main, mlops
from pipelines.declarations.errors import MlopsError
from tests.clones import commit_all, make_repository
from tests.pipelines.cli.command_tree import command_tree
from tests.pipelines.promotion.promotion_project import DATASET, MODEL
from tests.sample_project import PROJECT, ROOT

pytestmark = pytest.mark.slow


def run(
    *arguments: str, cwd: Path = PROJECT, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLOPS_", "KUBE"))}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )


ALL = command_tree(VERBS)


@pytest.fixture(autouse=True)
def keep_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `main` from changing the garbage collector of this process."""
    monkeypatch.setattr(sys.modules[main.__module__], "relax_gc", lambda: None)


each_command = pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])


def test_nothing_that_a_command_prints_in_a_workflow_is_a_command_to_its_runner() -> None:
    inside, again = (run("schemas", "--help", environ={"GITHUB_ACTIONS": "true"}) for _ in range(2))
    assert re.fullmatch(r"::stop-commands::[0-9a-f]{32}\n", inside.stderr)
    assert inside.stderr != again.stderr, "a printed text could end with a token that is known"
    assert run("schemas", "--help").stderr == ""
    assert "Usage:" in inside.stdout
    assert "stop-commands" not in inside.stdout


def test_help_lists_every_command_in_its_section_with_its_full_summary() -> None:
    text = CliRunner().invoke(mlops, ["--help"]).output
    sections = re.split(r"╭─ (\w+) ─+╮", text)[1:]
    listed = dict(zip(sections[::2], sections[1::2], strict=True))
    for name, verb in VERBS.items():
        summary = verb.help.replace("`", "")
        assert re.search(rf"│ {name} +{re.escape(summary)} +│", listed[verb.section]), f"{name}: {summary}"
    assert list(listed)[:6] == ["Environments", "Data", "Models", "Releases", "Repository", "Workflows"]
    assert list(listed)[-1] == "Options"
    assert "…" not in text


@pytest.mark.parametrize(("name", "verb"), VERBS.items(), ids=list(VERBS))
def test_a_listed_summary_is_the_first_line_of_the_commands_help(name: str, verb: Verb) -> None:
    command = verb.load()
    assert (command.name, first_line(command)) == (name, verb.help)


@each_command
def test_every_command_prints_its_help(path: tuple[str, ...], command: click.Command) -> None:
    done = CliRunner().invoke(mlops, [*path, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Usage: mlops {' '.join(path)} " in done.output


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("dpeloy", "deploy"),
        ("ci jugde", "judge"),
        ("ci select enviroments", "environments"),
        ("check", "mlops validate"),
        ("gates", "mlops ci judge"),
        ("plan deploy", "mlops ci select"),
        ("local start", "mlops laptop"),
        ("output --env dev", "mlops outputs"),
        ("connect", "mlops ci use-cluster"),
        ("images publish", "mlops laptop publish-images"),
        ("deploy --evn dev", "--env"),
    ],
)
def test_a_mistyped_or_renamed_command_gets_a_suggestion(
    line: str, suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: No such ")
    assert f"'{suggestion}'" in error
    assert "fix: see mlops " in error


@pytest.mark.parametrize("now", sorted({*RENAMED.values(), *IMAGES_RENAMED.values()}))
def test_every_suggested_new_name_exists(now: str) -> None:
    if not now.startswith("mlops laptop"):  # laptop/tests covers these
        assert tuple(now.split()[1:]) in [path for path, _ in ALL]


def test_a_group_without_a_command_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci"]) == 2
    assert "Usage: mlops ci " in capsys.readouterr().out


def test_the_version_is_that_of_the_distribution() -> None:
    assert CliRunner().invoke(mlops, ["--version"]).output == f"mlops {importlib.metadata.version('mlops')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_calls_mlops(shell: str) -> None:
    done = CliRunner().invoke(mlops, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert f"_MLOPS_COMPLETE={shell}_complete" in done.output


def test_completion_proposes_commands_and_subcommands() -> None:
    def complete(words: str, position: int) -> list[str]:
        done = run(environ={"_MLOPS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)})
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert "deploy" in complete("mlops de", 1)
    assert complete("mlops ci use", 2) == ["use-cluster"]


def test_an_error_is_printed_on_stderr_with_a_fix_and_without_a_traceback(tmp_path: Path) -> None:
    done = run("validate", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no Pulumi.yaml in ")
    assert "fix: run this inside a clone" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_invalid_declarations_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").touch()
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {a: [}\n")
    (tmp_path / "data-contracts").mkdir()
    (tmp_path / "data-contracts" / "x.odcs.yaml").write_text("kind: Nothing\n")
    done = run("validate", cwd=tmp_path)
    assert done.returncode == 1
    assert "Pulumi.dev.yaml:1" in done.stderr
    assert "x.odcs.yaml:1: kind: expected 'DataContract', found \"Nothing\"" in done.stderr


def test_a_sample_that_lacks_a_new_column_is_named(tmp_path: Path) -> None:
    root = make_repository(tmp_path).root
    assert run("validate", cwd=root).returncode == 0
    sample = root / "data-contracts" / "samples" / "diabetes-patients.csv"
    header, rows = sample.read_text().split("\n", 1)
    sample.write_text(header.replace("bmi", "body_mass") + "\n" + rows)
    done = run("validate", cwd=root)
    assert done.returncode == 1
    assert "data-contracts/samples/diabetes-patients.csv is rejected: expected the columns" in done.stderr
    assert "no 'bmi'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_contract_change_that_breaks_consumers_is_refused(tmp_path: Path) -> None:
    contract = make_repository(tmp_path).root / "data-contracts" / "diabetes-patients.odcs.yaml"
    said = contract.read_text()
    contract.write_text(said.replace("maximum: 120", "maximum: 110"))
    commit_all(tmp_path / "clone", "Narrow")
    done = run("validate", "--base", "HEAD^", cwd=tmp_path / "clone")
    assert "data-contracts/diabetes-patients.odcs.yaml breaks no consumer." in done.stdout, done.stderr
    contract.write_text(said)
    commit_all(tmp_path / "clone", "Widen")
    done = run("validate", "--base", "HEAD^", cwd=tmp_path / "clone")
    assert done.returncode == 1
    assert "data contract: data-contracts/diabetes-patients.odcs.yaml: age: maximum was 110" in done.stderr


def test_a_contract_can_be_removed_only_after_it_was_deprecated(tmp_path: Path) -> None:
    project = make_repository(tmp_path)
    contract = project.contract_file(DATASET)
    shutil.rmtree(project.models_folder / MODEL)
    said = contract.read_text()
    contract.unlink()
    commit_all(project.root, "Remove")
    done = run("validate", "--base", "HEAD^", cwd=project.root)
    assert done.returncode == 1
    assert f"data-contracts/{contract.name}: the contract was deleted" in done.stderr
    assert "merge `status: deprecated` first" in done.stderr
    contract.write_text(said.replace("status: active", "status: deprecated"))
    commit_all(project.root, "Deprecate")
    contract.unlink()
    commit_all(project.root, "Remove")
    done = run("validate", "--base", "HEAD^", cwd=project.root)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("validate", "--base", "HEAD~3", cwd=project.root)
    assert done.returncode == 1, "at that commit it was not deprecated"


def test_removing_an_environment_needs_its_name_twice() -> None:
    done = run("destroy", "--env", "prod", "--confirm", "production")
    assert done.returncode == 1
    assert "--confirm prod" in done.stderr


def test_a_protected_environment_is_not_removed_and_the_error_says_how_it_can_be() -> None:
    done = run("destroy", "--env", "prod", "--confirm", "prod")
    assert done.returncode == 1
    assert "prod is protected: expected `disposable: true` in Pulumi.prod.yaml" in done.stderr
    assert "docs/platform-engineer.md#remove-an-environment" in done.stderr


def test_an_environment_that_was_never_brought_up_has_no_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "open_target", lambda _: SimpleNamespace(outputs=lambda _: {}))
    done = CliRunner().invoke(environments.outputs, ["--env", "staging", "--target", "aws"])
    assert isinstance(done.exception, MlopsError)
    assert (str(done.exception.fix), done.output) == ("mlops up --env staging", "")


def test_images_are_pinned_by_digest_only(tmp_path: Path) -> None:
    done = run("images", "pin", "--env", "dev", "--training", "latest")
    assert done.returncode == 1
    assert "not the digest of an image" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["deploy", "--help"], ["ci", "--help"]])
def test_the_command_line_starts_without_the_heavy_libraries(arguments: list[str]) -> None:
    code = (
        "import sys; from pipelines.cli.main import main; main(sys.argv[1:]) if sys.argv[1:] else None; "
        "heavy = {'pandas', 'sklearn', 'pulumi', 'pulumi_aws', 'duckdb', 'pyiceberg', 'pyarrow', 'moto', 'boto3',"
        " 'onnxruntime', 'numpy', 'lightkube', 'laptop.laptop_target', 'laptop.lifecycle'};"
        "help_only = set() if sys.argv[1:] else {'rich', 'rich_click', 'laptop'};"
        "print('loaded:', sorted((heavy | help_only) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_command_that_prints_no_help_does_not_load_rich(tmp_path: Path) -> None:
    code = (
        "import sys; from pipelines.cli.main import main; main(['validate']); "
        "print('loaded:', sorted({'rich', 'rich_click', 'laptop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("arguments", [["completion", "bash"], ["--help"]])
def test_output_to_a_full_disk_is_an_error_without_a_traceback(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_output_to_a_closed_pipe_is_silent() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m pipelines.cli completion bash | true; echo ${{PIPESTATUS[0]}}"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "half"}, "Partial credentials found"),
        ({"MLOPS_TARGET": "moon"}, "'moon' is not one of"),
    ],
)
def test_a_stray_environment_is_an_error_without_a_traceback(
    variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    sample = PROJECT / "data-contracts" / "samples" / f"{DATASET}.csv"
    aside = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_EC2_METADATA_DISABLED": "true"}
    target = {"MLOPS_TARGET": "aws", **variables}
    done = run("land", DATASET, str(sample), "--env", "dev", environ={**aside, **target})
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_of_an_error_from_outside_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/a")

    monkeypatch.setattr("pipelines.declarations.schemas.export_schemas", fail)
    assert main(["schemas"]) == 1
    monkeypatch.setenv("MLOPS_TRACEBACK", "1")
    with pytest.raises(PermissionError):
        main(["schemas"])


def test_neither_a_terminal_nor_a_runner_acts_on_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MlopsError("the file \x1b[2J.csv\n::add-mask::e\n##[add-mask]e", fix="\x9b2J")

    monkeypatch.setattr("pipelines.declarations.schemas.export_schemas", fail)
    assert main(["schemas"]) == 1
    said = capsys.readouterr().err.split("error: ", 1)[1]
    assert "\x1b" not in said and "\x9b" not in said
    assert not any(line.lstrip().startswith("::") for line in said.splitlines())
    assert "##[" not in said
