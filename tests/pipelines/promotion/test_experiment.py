"""Experiments: a working tree is trained on this machine, judged, and leaves one file behind."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.cli.main import mlops
from pipelines.data.local_rows import read_good_rows
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.experiment import run_experiment
from pipelines.training_runs.experiments import read_experiments
from tests.pipelines.training.project import COLUMNS, DATASET, DECLARATION, contract_document, make_project, make_rows
from tests.pipelines.training.project import MODEL as LOANS
from tests.sample_project import copy_as_forked

MODEL = "diabetes-progression"

PATIENT = "p99_ms: 60000.0"
"""A bound that a busy machine keeps, too: these tests are not about latency."""

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = copy_as_forked(tmp_path / "fork", "requirements")
    monkeypatch.chdir(root)
    declaration = root / "models" / MODEL / "model.yaml"
    assert "p99_ms: 20.0" in declaration.read_text()
    declaration.write_text(declaration.read_text().replace("p99_ms: 20.0", PATIENT))
    for name in ("AWS_ACCESS_KEY_ID", "KUBECONFIG", "MLOPS_TARGET"):
        monkeypatch.delenv(name, raising=False)
    return Project(root)


def experiment(*options: str) -> Result:
    return CliRunner().invoke(mlops, ["train", MODEL, "--here", *options])


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_experiment_prints_metrics_with_their_bounds_and_verdicts_and_keeps_its_facts(project: Project) -> None:
    before = tree(project.root)
    done = experiment()
    assert done.exit_code == 0, done.output
    assert "diabetes-patients.csv: 442 rows; 5 others break the contract" in done.output
    (rmse,) = [line for line in done.output.splitlines() if line.startswith("rmse ")]
    assert rmse.endswith(f"≤ {project.model(MODEL).gates.thresholds[0].maximum:g}")
    for gate in ("thresholds", "fairness", "leakage", "runtime"):
        assert f"\n{gate:<12} pass" in done.output
    assert "sha256:" not in done.output
    (added,) = tree(project.root).items() - before.items()
    (kept,), _ = read_experiments(project.root, MODEL, most=10)
    assert added[0] == f".mlops/experiments/{MODEL}/{kept.id}.json"
    assert kept.facts is not None and kept.facts.parameters == dict(project.model(MODEL).training.parameters)
    assert (kept.facts.commit, kept.facts.image, kept.facts.training_rows) == (None, None, 336)
    assert f"{kept.facts.metrics['rmse'].value:.4g}" in rmse
    assert f"Experiment {kept.id}: nothing is registered" in done.output


def test_an_edit_counts_at_once(project: Project) -> None:
    """The code runs from the working tree, and a bound that it misses is reported."""
    file = project.models_folder / MODEL / "train.py"
    file.write_text(file.read_text().replace("def train(", "print('edited')\n\n\ndef train(", 1))
    declaration = project.model_file(MODEL)
    bound = next(line for line in declaration.read_text().splitlines() if "rmse, maximum" in line)
    declaration.write_text(declaration.read_text().replace(bound, bound.replace("62", "1"), 1))
    done = experiment()
    assert done.exit_code == 0, done.output
    assert "edited" in done.output
    assert "\nthresholds   fail" in done.output
    assert "fix: improve the model, or change the bound" in done.output


def test_a_file_of_this_machine_takes_the_place_of_the_sample(project: Project, tmp_path: Path) -> None:
    sample = project.contracts_folder / "samples" / "diabetes-patients.csv"
    own = tmp_path / "own.csv"
    own.write_text("".join(sample.read_text().splitlines(keepends=True)[:201]))
    done = experiment("--file", str(own))
    assert done.exit_code == 0, done.output
    assert "own.csv: 200 rows\n" in done.output


def test_a_mistake_in_the_code_names_its_line_without_a_traceback(project: Project) -> None:
    file = project.models_folder / MODEL / "train.py"
    file.write_text("def train(data):\n    return data.nothing\n")
    done = experiment()
    assert isinstance(done.exception, MlopsError)
    assert "'TrainingData' object has no attribute 'nothing'" in done.exception.what
    assert f"at {file}:2: return data.nothing" in done.exception.what


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--here", "--pinned"], "leave out --pinned"),
        (["--here", "--env", "dev", "--file", "a.csv"], "leave out --file"),
        (["--here", "--snapshot", "1"], "--snapshot needs --env"),
        (["--env", "dev", "--file", "a.csv"], "need --here"),
        ([], "Missing option '--env', or '--here'"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(project: Project, options: list[str], message: str) -> None:
    done = CliRunner().invoke(mlops, ["train", MODEL, *options])
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "no such file"),
        ("rows.xlsx", b"x", "ends in one of .csv, .jsonl, .parquet"),
        ("empty.csv", b"", "expected rows, found an empty file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    project: Project, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    done = experiment("--file", str(file))
    assert isinstance(done.exception, MlopsError)
    assert message in str(done.exception)


MISSING = """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from pipelines.training import TrainedModel, TrainingData, from_sklearn


    def train(data: TrainingData) -> TrainedModel:
        rows = data.features
        for name in ("income", "age", "member"):
            assert rows[name].dtype == np.float64, name
            assert rows[name].isna().any(), name
        assert set(rows["member"].dropna()) == {0.0, 1.0}
        assert set(rows["region"]) == {"north", "south", ""}
        columns = ColumnTransformer(
            [("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["region"])],
            remainder="passthrough",
        )
        estimator = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5))
        return from_sklearn(estimator.fit(rows, data.target), rows)
"""


def test_missing_values_of_every_type_reach_the_training_function_and_the_server(tmp_path: Path) -> None:
    """A number, an integer, a boolean, and a text with listed values are missing, also in the golden predictions."""
    columns = [
        {key: value for key, value in column.items() if key != "required" or column.get("primaryKey")}
        for column in COLUMNS
    ]
    gates = {**DECLARATION["gates"], "latency": {"p99_ms": 60000.0}}
    project = make_project(tmp_path / "project", MISSING, slices=[], gates=gates)
    contract = project.contracts_folder / f"{DATASET}.odcs.yaml"
    contract.write_text(yaml.safe_dump(contract_document(columns)))
    (project.root / "requirements" / "serving.txt").write_text(f"onnxruntime=={metadata.version('onnxruntime')}\n")
    rows = make_rows()
    for index, step in ((1, 5), (2, 6), (4, 4)):
        values = rows.column(index).to_pylist()
        values[::step] = [None] * len(values[::step])
        rows = rows.set_column(index, rows.field(index), [pa.array(values, rows.field(index).type)])
    file = tmp_path / "loans.csv"
    pa.csv.write_csv(rows, file, pa.csv.WriteOptions(quoting_style="none"))
    read, bad = read_good_rows(project.contract(DATASET), file)
    assert (read.num_rows, bad) == (240, 0)
    found = run_experiment(project, LOANS, read, None, lambda line: None)
    verdicts = {verdict.gate: verdict for verdict in found.verdicts}
    assert verdicts["runtime"].outcome == "pass", verdicts["runtime"].why
