from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import numpy as np
import onnx
import pyarrow as pa
import pytest

from pipelines.declarations.bundle import GoldenPredictions, RequestSchema
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_value
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.project import Project
from pipelines.declarations.run_facts import facts_of_run
from pipelines.promotion.gates.compatibility import incompatibilities
from pipelines.registry import bundles, evidence, runs
from pipelines.registry.runs import list_runs, parse_record, read_records
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_error import RequestError
from pipelines.training import training_run as job
from pipelines.training.__main__ import main
from pipelines.training.confined_process import ConfinedProcess
from pipelines.training.onnx_graph import check_graph
from pipelines.training.training_run import TrainingRun, make_bundle, run_training
from pipelines.training.training_set import in_memory
from tests.aws import EmulatedAccount
from tests.http_responder import http_server
from tests.pipelines.training.mlflow_server import FakeMlflow
from tests.pipelines.training.models import crashing_model, endless_model, linear, load_graph
from tests.pipelines.training.project import (
    DATASET,
    DECLARATION,
    IMAGE,
    MODEL,
    TRAIN,
    contract_document,
    make_project,
    make_rows,
    store_rows,
    version_of,
)
from tests.pipelines.training.test_graph import custom_operator, weights_outside
from tests.signing_environments import COMMIT, OTHER_COMMIT, make_signing_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

BY_HAND = """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from pipelines.training import TrainedModel, TrainingData


    def train(data: TrainingData) -> TrainedModel:
        slope = np.float32(data.parameters["slope"])
        graph = helper.make_graph(
            [helper.make_node("Mul", ["features", "slope"], ["prediction"])],
            "model",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 1])],
            [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])],
            [numpy_helper.from_array(np.array([slope]), "slope")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return TrainedModel(lambda rows: rows["age"].to_numpy() * slope, model.SerializeToString())
"""
"""A model without scikit-learn: income is a multiple of the age."""

REGRESSION = {
    "task": "regression",
    "target": "income",
    "features": ["age"],
    "protected": [],
    "slices": [],
    "gates": {
        "thresholds": [{"metric": "rmse", "maximum": 1e6}],
        "champion": {"metric": "rmse", "maximum_regression": 0.02},
        "latency": {"p99_ms": 20.0},
        "soak": {"requests": 1, "seconds": 0},
    },
}


def settings(entrypoint: str = "train:train", **parameters: Any) -> dict[str, object]:
    resources = {"cpu": "1", "memory": "1Gi"}
    return {"entrypoint": entrypoint, "seed": 3, "holdout": 0.3, "parameters": parameters, "resources": resources}


def by_hand(root: Path, train: str = BY_HAND, **training: Any) -> Project:
    return make_project(root, train, **{**REGRESSION, "training": settings(**{"slope": 2.0, **training})})


def bundle(project: Project, rows: pa.Table | None = None) -> bundles.FetchedBundle:
    """Make a bundle without registering it."""
    rows = make_rows() if rows is None else rows
    model, contract = project.model(MODEL), project.contract(DATASET)
    ordered = in_memory(rows, model, contract)
    manifest, files = make_bundle(project, model, contract, ordered, version_of(rows), IMAGE, lambda line: None)
    return bundles.FetchedBundle(manifest.digest, manifest, files)


@pytest.fixture(scope="module")
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    contract = Contract.model_validate_json(json.dumps(contract_document()))
    descriptor = make_signing_environment("dev", None, contract)
    store_rows(descriptor, contract, make_rows())
    return descriptor


def test_a_training_run_registers_a_signed_bundle_and_a_second_run_has_the_same_digest(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is another process with another hash seed, in another folder, at another commit."""
    package = tmp_path / "source" / "pipelines"
    shutil.copytree(ROOT / "pipelines", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(job, "PACKAGE", package)
    project = make_project(tmp_path / "one")
    said: list[str] = []
    mlflow = FakeMlflow()
    with http_server(mlflow.answer) as url, mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": url}):
        digest = run_training(project, dev, MODEL, TrainingRun("run-1", COMMIT, IMAGE), said.append)
    assert said[-1] == f"copied to MLflow as run {1:032x}"
    assert mlflow.runs[f"{1:032x}"]["tags"]["mlops.bundle"] == digest

    elsewhere = make_project(tmp_path / "two" / "deeper")
    (elsewhere.root / "README.md").write_text("Another commit.")
    (elsewhere.models_folder / MODEL / "releases").mkdir()
    (elsewhere.models_folder / MODEL / "releases" / "dev.yaml").write_text("bundle: null")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.training", MODEL],
        cwd=elsewhere.root,
        env={
            **os.environ,
            "PYTHONPATH": str(package.parent),
            "PYTHONHASHSEED": "1",
            VARIABLE: dev.model_dump_json(),
            "SOURCE_COMMIT": OTHER_COMMIT,
            "IMAGE_DIGEST": IMAGE,
            "RUN_ID": "run-2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == digest
    assert runs.read_run(dev, MODEL, "run-1") == runs.read_run(dev, MODEL, "run-2") == digest

    verified = evidence.verify_bundle(dev, MODEL, digest, signer="dev")
    assert verified.commits == (COMMIT, OTHER_COMMIT)
    assert verified.evaluated.gates == digest_of_value(project.model(MODEL).gates.model_dump(mode="json"))
    assert verified.manifest.dataset.rows == 240
    evaluation = Evaluation.model_validate_json(verified.files["evaluation.json"])
    assert evaluation.classes == ("no", "yes")
    assert evaluation.holdout.rows + evaluation.holdout.training_rows == 239
    assert evaluation.holdout.unlabelled_rows == 1
    auc = evaluation.metrics["roc_auc"]
    assert auc.value is not None and auc.value > 0.7
    assert set(evaluation.groups["region"].groups) == {"north", "south"}
    assert "roc_auc" in verified.files["card.md"].decode()
    runs_of = list_runs(dev, MODEL)
    records = {name: parse_record(content) for name, content in read_records(dev, runs_of).items()}
    for name, commit in (("run-1", COMMIT), ("run-2", OTHER_COMMIT)):
        record = records[name]
        assert record is not None and record.facts is not None
        times = (record.facts.started, record.facts.finished)
        assert record.facts == facts_of_run(verified.manifest, evaluation, *times, commit, image=IMAGE)
        assert {"roc_auc", "slice/young/roc_auc", "difference/region/roc_auc"} <= set(record.facts.metrics)

    schema = RequestSchema.model_validate_json(verified.files["schema.json"])
    assert [(t.name, t.datatype, t.shape) for t in schema.inputs] == [
        ("features", "FP32", (-1, 3)),
        ("region", "BYTES", (-1, 1)),
    ]
    golden = GoldenPredictions.model_validate_json(verified.files["golden.json"])
    kinds = {"FP32": np.float32, "BYTES": object}
    asked = {
        t.name: np.array([np.nan if v is None else v for v in t.data], kinds[t.datatype]).reshape(t.shape)
        for t in golden.inputs
    }
    answered = load_graph(check_graph(verified.files["model.onnx"])).run(asked)
    for tensor, found in zip(golden.outputs, answered, strict=True):
        assert found.ravel().tolist() == list(tensor.data)

    listed = boto3.client("s3").list_objects_v2(Bucket=dev.logs_bucket, Prefix=f"lineage/train-{MODEL}/")["Contents"]
    assert sorted(entry["Key"].rpartition("-")[2] for entry in listed) == ["COMPLETE.json"] * 2 + ["START.json"] * 2


def test_a_model_without_scikit_learn_is_bundled(tmp_path: Path) -> None:
    made = bundle(by_hand(tmp_path))
    assert made.manifest.task == "regression"
    assert made.manifest.parameters == {"slope": 2.0}
    assert set(made.files) == set(made.manifest.files)


def test_the_digest_depends_on_source_data_and_parameters_only(tmp_path: Path) -> None:
    first = bundle(by_hand(tmp_path / "a")).digest
    project = by_hand(tmp_path / "b")
    (project.root / "docs.md").write_text("unrelated")
    assert bundle(project).digest == first
    assert bundle(by_hand(tmp_path / "c", slope=3.0)).digest != first
    assert bundle(by_hand(tmp_path / "d", BY_HAND + "\n    # a comment\n")).digest != first
    assert bundle(project, make_rows(239)).digest != first
    (project.root / "requirements" / "pipelines.txt").write_text("numpy==2\n")
    assert bundle(project).digest != first


def test_the_digest_depends_on_the_code_that_a_training_run_executes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pipelines"
    shutil.copytree(ROOT / "pipelines", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(job, "PACKAGE", package)
    project = by_hand(tmp_path / "project")
    first = job.source_of(project, MODEL)
    (package / "serving" / "application.py").write_text("# another server\n")
    assert job.source_of(project, MODEL) == first
    (package / "serving" / "runtime.py").write_text("# another runtime\n")
    assert job.source_of(project, MODEL).pipelines != first.pipelines


def test_a_training_run_imports_only_code_that_its_digest_covers() -> None:
    code = """
import importlib, pkgutil, sys
import pipelines.training, pipelines.data.catalog, pipelines.data.lineage
for module in pkgutil.iter_modules(pipelines.training.__path__):
    if module.name != "__main__":
        importlib.import_module(f"pipelines.training.{module.name}")
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("pipelines.")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = [Path(file).relative_to(ROOT / "pipelines") for file in done.stdout.split()]
    assert len(imported) > len(job.CODE)
    covered = [Path(part) for part in job.CODE]
    assert [path for path in imported if not any(path.is_relative_to(part) for part in covered)] == []


def test_a_bundle_whose_onnx_disagrees_with_the_model_is_not_registered(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    wrong = by_hand(tmp_path, BY_HAND.replace('rows["age"].to_numpy() * slope', 'rows["age"].to_numpy() * 2.1'))
    before = bundles.list_digests(dev, MODEL)
    with pytest.raises(MlopsError, match="does not predict what the trained model does"):
        run_training(wrong, dev, MODEL, TrainingRun("run-3", COMMIT, IMAGE), lambda line: None)
    assert bundles.list_digests(dev, MODEL) == before
    with pytest.raises(MlopsError, match="produced no bundle"):
        runs.read_run(dev, MODEL, "run-3")


HOSTILE = """
    from pathlib import Path

    from pipelines.training import TrainedModel, TrainingData


    def train(data: TrainingData) -> TrainedModel:
        content = Path(__file__).with_name("hostile.onnx").read_bytes()
        return TrainedModel(lambda rows: rows["age"].to_numpy(), content)
"""
"""Training code that returns bytes which were made somewhere else."""


def by_bytes(root: Path, content: bytes) -> Project:
    """Return a project whose training code returns these bytes as its model."""
    project = by_hand(root, HOSTILE)
    (project.models_folder / MODEL / "hostile.onnx").write_bytes(content)
    return project


def endless_of_one() -> onnx.ModelProto:
    """Return a model of one feature that does not end."""
    return endless_model(1)


def undefined_model() -> onnx.ModelProto:
    """Return a model that predicts NaN."""
    model = linear([np.nan])
    model.graph.node[0].op_type = "Mul"
    model.graph.initializer[0].dims[:] = [1]
    return model


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(
            lambda: crashing_model(1),
            f"the ONNX model of {MODEL}: the process that loads it was ended by the signal SIGFPE",
            marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors do not trap"),
            id="crashes",
        ),
        pytest.param(
            endless_of_one,
            f"the ONNX model of {MODEL}: expected an answer within 8 s, found none",
            id="hangs",
        ),
        pytest.param(undefined_model, "predictions of the ONNX model on the holdout: expected finite", id="NaN"),
        pytest.param(weights_outside, "weights 'w' of the ONNX model: expected inside the model", id="another file"),
        pytest.param(custom_operator, "operator set of Run in the ONNX model: expected", id="operator"),
    ],
)
def test_a_hostile_model_file_harms_the_process_that_loads_it_only_and_makes_no_bundle(
    dev: EnvironmentDescriptor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], onnx.ModelProto],
    expected: str,
) -> None:
    if make is endless_of_one:
        monkeypatch.setattr("pipelines.training.confined_model.ANSWER_SECONDS", 8.0)
    project, before = by_bytes(tmp_path, make().SerializeToString()), bundles.list_digests(dev, MODEL)
    with pytest.raises(MlopsError) as caught:
        run_training(project, dev, MODEL, TrainingRun("run-hostile", COMMIT, IMAGE), lambda line: None)
    assert str(caught.value).startswith(expected)
    assert bundles.list_digests(dev, MODEL) == before
    with pytest.raises(MlopsError, match="produced no bundle"):
        runs.read_run(dev, MODEL, "run-hostile")


def test_the_process_that_loads_the_model_gets_features_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could choose its predictions by the target, or by what else it knew about a row."""
    sent: list[Any] = []
    send = ConfinedProcess.send

    def noted(process: ConfinedProcess, value: object) -> None:
        sent.append(value)
        send(process, value)

    monkeypatch.setattr(ConfinedProcess, "send", noted)
    made = bundle(by_hand(tmp_path))
    asked = [value for value in sent if isinstance(value, tuple) and isinstance(value[0], str)]
    assert {value[0] for value in asked} == {"check", "load", "rows", "row"}
    feeds = {kind: [value[1] for value in asked if value[0] == kind] for kind in ("rows", "row")}
    for feed in (*feeds["rows"], *feeds["row"]):
        assert list(feed) == ["features"]
        assert set(feed["features"].ravel().tolist()) <= set(make_rows()["age"].to_pylist())
    evaluation = Evaluation.model_validate_json(made.files["evaluation.json"])
    assert [len(feed["features"]) for feed in feeds["rows"]] == [evaluation.holdout.rows]


def test_the_job_loads_no_parser_of_models(tmp_path: Path) -> None:
    by_hand(tmp_path)
    code = f"""
import sys
from pathlib import Path
from pipelines.declarations.project import Project
from pipelines.training.training_run import make_bundle
from pipelines.training.training_set import in_memory
from tests.pipelines.training.project import DATASET, IMAGE, MODEL, make_rows, version_of

project, rows = Project(Path({str(tmp_path)!r})), make_rows()
model, contract = project.model(MODEL), project.contract(DATASET)
_, files = make_bundle(
    project, model, contract, in_memory(rows, model, contract), version_of(rows), IMAGE, lambda line: None
)
print(len(files), sorted({{"onnx", "onnxruntime", "skl2onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "6 []\n", done.stderr


def test_the_modules_of_a_model_are_unloaded_after_training(tmp_path: Path) -> None:
    project = by_hand(tmp_path, "from .parts import train\n")
    by_hand_text = by_hand(tmp_path / "other").models_folder / MODEL / "train.py"
    (project.models_folder / MODEL / "parts.py").write_text(by_hand_text.read_text())
    modules, path = set(sys.modules), list(sys.path)
    bundle(project)
    assert not [name for name in set(sys.modules) - modules if name.startswith("mlops_model")]
    assert sys.path == path
    assert not list(project.models_folder.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("def train(data):\n    return 1\n", "train:train of loan-default: expected a TrainedModel, found int"),
        ("def fit(data):\n    return 1\n", "has no function 'train'"),
        ("train = 3\n", "has no function 'train'"),
    ],
)
def test_an_entry_point_that_is_not_a_training_function_is_an_error(tmp_path: Path, train: str, expected: str) -> None:
    with pytest.raises(MlopsError, match=expected):
        bundle(by_hand(tmp_path, train))


def test_a_missing_entry_point_is_an_error_that_names_its_path(tmp_path: Path) -> None:
    project = make_project(tmp_path, BY_HAND, **{**REGRESSION, "training": settings("fit:train", slope=1)})
    with pytest.raises(MlopsError, match=r"entry point fit:train of loan-default is missing: .*fit\.py does not exist"):
        bundle(project)


@pytest.mark.parametrize("missing", ["income", "age"])
def test_rows_without_the_target_or_a_feature_are_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(MlopsError, match=f"the rows of loans lack {missing}, which loan-default needs"):
        bundle(by_hand(tmp_path), make_rows().drop_columns([missing]))


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="expected at least 2 for training and 2 in the holdout"):
        bundle(by_hand(tmp_path), make_rows(3))


def test_holdout_rows_that_duplicate_training_rows_are_counted(tmp_path: Path) -> None:
    rows = make_rows(200)
    again = rows.set_column(0, "loan_id", pa.array(range(1000, 1200), pa.int64()))
    project = by_hand(tmp_path)

    def leaked(table: pa.Table) -> int:
        return Evaluation.model_validate_json(bundle(project, table).files["evaluation.json"]).holdout.leaked_rows

    # Two of these loans are equal by chance.
    assert leaked(rows) == 1
    assert leaked(pa.concat_tables([rows, again])) > 50


def test_a_second_version_with_a_new_feature_answers_the_requests_of_the_first(tmp_path: Path) -> None:
    train = TRAIN.replace('["income", "age", "member"]', '[n for n in data.features.columns if n != "region"]')
    assert train != TRAIN

    def version(folder: str, *features: str, **serving: object) -> bundles.FetchedBundle:
        changes = {"features": [*features, "region"], "serving": {**DECLARATION["serving"], **serving}}
        return bundle(make_project(tmp_path / folder, train, **changes))

    def schema(made: bundles.FetchedBundle) -> RequestSchema:
        return RequestSchema.model_validate_json(made.files["schema.json"])

    first = version("first", "income", "age")
    golden = GoldenPredictions.model_validate_json(first.files["golden.json"])
    request = json.dumps({"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}).encode()

    second = version("second", "income", "age", "member", optional_features=["member"])
    assert incompatibilities(schema(first), schema(second)) == []
    answer = json.loads(Predictor(second.manifest, second.files).answer(request, b"1").body)
    assert [output["name"] for output in answer["outputs"]] == [output.name for output in golden.outputs]

    strict = version("strict", "income", "age", "member")
    assert len(incompatibilities(schema(first), schema(strict))) == 1
    with pytest.raises(RequestError, match="expected shape"):
        Predictor(strict.manifest, strict.files).answer(request, b"1")


def test_a_class_found_only_in_the_holdout_is_refused(tmp_path: Path) -> None:
    train = """
        from pipelines.training import TrainedModel, TrainingData
        from .classifier import constant


        def train(data: TrainingData) -> TrainedModel:
            return constant(("maybe", "no"))
    """
    project = make_project(tmp_path, train, features=["age"], training=settings())
    for name in ("classifier", "models"):
        source = (
            (Path(__file__).parent / f"{name}.py").read_text().replace("tests.pipelines.training.models", ".models")
        )
        (project.models_folder / MODEL / f"{name}.py").write_text(source)
    with pytest.raises(MlopsError, match=r"values of defaulted in the holdout: expected maybe, no, .* found yes"):
        bundle(project)


def set_environ(monkeypatch: pytest.MonkeyPatch, dev: EnvironmentDescriptor, **changes: str) -> None:
    variables = {VARIABLE: dev.model_dump_json(), "SOURCE_COMMIT": COMMIT, "IMAGE_DIGEST": IMAGE, "RUN_ID": "run-9"}
    for name, value in {**variables, **changes}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({VARIABLE: ""}, "MLOPS_ENVIRONMENT is not set"),
        ({"SOURCE_COMMIT": ""}, "SOURCE_COMMIT: expected the commit of the source: 40 hexadecimal digits, found ''"),
        (
            {"IMAGE_DIGEST": "latest"},
            "IMAGE_DIGEST: expected the digest of the training image: sha256:…, found 'latest'",
        ),
        ({"RUN_ID": "a b"}, "'a b' is not a valid run id"),
        ({"DATASET_SNAPSHOT": "77"}, "loans has no snapshot '77'"),
    ],
)
def test_invalid_environment_variables_fail_the_job(
    dev: EnvironmentDescriptor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.chdir(by_hand(tmp_path).root)
    set_environ(monkeypatch, dev, **changes)
    assert main([MODEL]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert expected in said.err


def test_a_run_without_an_id_gets_a_unique_one(monkeypatch: pytest.MonkeyPatch, dev: EnvironmentDescriptor) -> None:
    set_environ(monkeypatch, dev, RUN_ID="")
    first, second = TrainingRun.from_environ(MODEL), TrainingRun.from_environ(MODEL)
    assert first.id != second.id
    assert first.id.startswith(f"{MODEL}-")
