"""`mlops runs`: experiments of the working tree and runs of an environment, and errors for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import run_queries
from pipelines.cli.main import main, mlops
from pipelines.declarations.errors import MlopsError
from pipelines.registry import runs
from pipelines.training_runs.experiments import save_experiment
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.promotion.promotion_project import MODEL
from tests.pipelines.training_runs.recorded import digest, make_facts
from tests.sample_project import ROOT, work_in_sample


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in_sample(monkeypatch, tmp_path)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(mlops, ["runs", *arguments])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done


def test_experiments_are_listed_shown_and_compared(project: Path) -> None:
    assert run("list", MODEL, "--here").output == f"no experiments of {MODEL} in this working tree yet\n"
    names = [
        save_experiment(project, make_facts(rmse, model=MODEL, parameters={"alpha": alpha}, commit=None, image=None))
        for rmse, alpha in ((50.0, 0.1), (60.0, 0.2))
    ]
    listed = run("list", MODEL, "--here").output
    assert all(name in listed for name in names) and "rmse" in listed
    shown = run("show", MODEL, names[0], "--here").output
    assert "an experiment of this working tree" in shown and "50 (48 to 52)" in shown
    compared = run("compare", MODEL, "--here").output.splitlines()
    assert compared[0] == f"2 runs of {MODEL}, rmse: lower is better"
    found = json.loads(run("compare", MODEL, "--here", "--format", "json").output)
    assert [each["run"] for each in found["runs"]] == names
    assert found["differing"] == ["alpha"]
    assert json.loads(run("list", MODEL, "--here", "--json").output)[0]["environment"] is None


def test_a_page_and_a_text_are_written_to_files(project: Path) -> None:
    name = save_experiment(project, make_facts(model=MODEL))
    assert run("compare", MODEL, "--here", "--format", "html").output == f"wrote {MODEL}-runs.html\n"
    page = (project / f"{MODEL}-runs.html").read_text()
    assert name in page and "<script" not in page
    run("compare", MODEL, "--here", "--output", "runs.txt")
    assert (project / "runs.txt").read_text().startswith("1 run of ")
    done = CliRunner().invoke(mlops, ["runs", "compare", MODEL, "--here", "--output", "Pulumi.yaml/runs.txt"])
    assert "cannot be written" in str(done.exception)


def test_registered_runs_and_experiments_are_listed_apart_and_compared_together(
    project: Path, account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = make_environment("dev")
    monkeypatch.setattr(run_queries, "open_target", lambda _: SimpleNamespace(descriptor=lambda _: dev))
    name = save_experiment(project, make_facts(40.0, model=MODEL))
    for number in range(3):
        facts = make_facts(50.0 + number, model=MODEL)
        runs.record_run(dev, MODEL, f"17-{number}", digest(str(number)), "77", facts)
    apart = run("list", MODEL, "--env", "dev", "--here", "--last", "2").output.split("\n\n")
    assert len(apart) == 2
    assert apart[0].startswith(f"runs of {MODEL} in dev") and name not in apart[0]
    assert apart[0].endswith("… and 1 older: --last 3")
    assert name in apart[1]
    found = json.loads(run("compare", MODEL, "--env", "dev", "--here", "--format", "json").output)["runs"]
    assert [(each["run"], each["environment"]) for each in found] == [
        (name, None),
        *((f"17-{number}", "dev") for number in range(3)),
    ]
    chosen = run("compare", MODEL, "17-0", "here", "--env", "dev", "--here", "--sort", "time", "--metric", "r2").output
    assert "experiment" in chosen and "17-0" in chosen and "17-1" not in chosen
    done = CliRunner().invoke(mlops, ["runs", "show", MODEL, "17-0", "--env", "dev"])
    assert "has no bundle" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", MODEL], "Missing option '--env', or '--here'"),
        (["list", "nothing", "--here"], "nothing"),
        (["compare", MODEL, "--here"], f"nothing to compare: expected runs of {MODEL}, found none"),
        (["show", MODEL, "x", "--here"], "expected one, found none"),
        (["list", MODEL, "--env", "prod"], "prod"),
        (["list", MODEL, "--here", "--last", "0"], "--last"),
    ],
)
def test_a_mistake_is_an_error_with_a_fix(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys.modules[main.__module__], "relax_gc", lambda: None)
    assert main(["runs", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and "fix: " in error


def test_a_metric_that_no_run_has_is_named(project: Path) -> None:
    save_experiment(project, make_facts(model=MODEL))
    done = CliRunner().invoke(mlops, ["runs", "compare", MODEL, "--here", "--sort", "accuracy"])
    assert isinstance(done.exception, MlopsError)
    assert "expected one of rmse, r2" in str(done.exception)


@pytest.mark.slow
def test_experiments_are_compared_without_the_heavy_libraries(project: Path) -> None:
    save_experiment(project, make_facts(model=MODEL))
    code = (
        "import sys; from pipelines.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'pandas', 'numpy', 'scipy', 'sklearn', 'pulumi', 'duckdb', 'pyarrow', 'boto3', 'laptop', 'rich'};"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    for form in ("text", "json", "html"):
        options = ["--here", "--format", form, "--output", f"out.{form}"]
        done = subprocess.run(
            [sys.executable, "-c", code, "runs", "compare", MODEL, *options],
            cwd=project, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "loaded: []", form
