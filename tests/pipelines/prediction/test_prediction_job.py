from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import __main__ as data_command
from pipelines.data.catalog import append, open_or_make_table, open_table
from pipelines.data.expired_versions import read_expired
from pipelines.data.file_replacement import current_files
from pipelines.data.table_maintenance import kept_time, maintain_table, plan_lines, plan_maintenance, predicted_versions
from pipelines.data.versions import TableVersion, list_versions, version_lines
from pipelines.declarations.classification import is_personal
from pipelines.declarations.digests import digest_of_file
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.predictions_contract import predictions_contract
from pipelines.declarations.project import Project
from pipelines.lineage.facts import LineageFacts
from pipelines.lineage.gather_facts import read_predictions
from pipelines.lineage.graph import build_graph, find_prediction, graph_lines, trace
from pipelines.prediction import __main__ as command
from pipelines.prediction import prediction_job
from pipelines.prediction.prediction_inputs import RefusedInputError
from pipelines.prediction.prediction_job import run_prediction
from pipelines.prediction.prediction_output import save_predictions
from pipelines.prediction.prediction_request import PREDICTION_REQUEST, FileInput, PredictionRequest, VersionInput
from pipelines.registry import bundles, evidence
from tests.aws import EmulatedAccount
from tests.pipelines.prediction.progression import MODEL, patients, progression_bundle, save
from tests.pipelines.serving.bundles import with_file
from tests.sample_project import PROJECT, ROOT, work_in_sample
from tests.signing_environments import GATES, example_build, make_signing_environment

pytestmark = pytest.mark.slow

DECLARED = Project(PROJECT)
SOURCE = DECLARED.contract(DECLARED.model(MODEL).contract)
PREDICTIONS = f"{MODEL}-predictions"


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment("dev", None, SOURCE)


def registered(dev: EnvironmentDescriptor, seed: int = 7) -> str:
    made = progression_bundle(seed)
    bundles.push(dev, made.manifest, made.files)
    evidence.attest(dev, made.manifest, GATES, example_build("dev"))
    return made.digest


def landed(dev: EnvironmentDescriptor, path: Path, bundle: str) -> PredictionRequest:
    key = f"{PREDICTIONS}/{path.name}"
    boto3.client("s3").upload_file(str(path), dev.landing_bucket, key)
    return PredictionRequest(bundle=bundle, file=FileInput(key=key, digest=digest_of_file(path)))


def predict(dev: EnvironmentDescriptor, request: PredictionRequest, log: list[str] | None = None) -> str:
    return run_prediction(DECLARED, dev, MODEL, request, (log if log is not None else []).append)


def rows(dev: EnvironmentDescriptor, snapshot: str | None = None) -> list[dict[str, Any]]:
    scan = open_table(dev, PREDICTIONS).scan(snapshot_id=int(snapshot) if snapshot else None)
    found: list[dict[str, Any]] = scan.to_arrow().sort_by("row").to_pylist()
    return found


def events(dev: EnvironmentDescriptor) -> list[dict[str, Any]]:
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket=dev.logs_bucket, Prefix=f"lineage/predict-{MODEL}/")["Contents"]
    found = [json.loads(s3.get_object(Bucket=dev.logs_bucket, Key=o["Key"])["Body"].read()) for o in listed]
    return sorted(found, key=lambda event: str(event["eventTime"]))


def test_a_file_becomes_a_version_of_the_predictions(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    bundle, log = registered(dev), list[str]()
    request = landed(dev, save(tmp_path, patients(5, age=[30, 17, 40, 50, 60])), bundle)
    snapshot = predict(dev, request, log)
    found = rows(dev)
    assert [row["prediction"] for row in found] == [pytest.approx(62.1), None, *map(pytest.approx, (72.1, 82.1, 92.1))]
    assert [row["patient_id"] for row in found] == [1, 2, 3, 4, 5]
    assert {row["bundle"] for row in found} == {bundle}
    assert "age" in found[1]["refused"] and [row["row"] for row in found if row["refused"]] == [2]
    assert log == [
        "patients.parquet: 4 of 5 rows predicted",
        "  refused 1 row: age: expected a number at least 18 and at most 100",
    ]
    (version,) = list_versions(open_table(dev, PREDICTIONS))
    assert (version.snapshot, version.rows, version.bundle, version.file) == (snapshot, 5, bundle, "patients.parquet")
    assert f"predicted from patients.parquet by {bundle[:19]}…" in version_lines([version])[0]


def test_a_model_that_crashes_or_ends_its_process_leaves_no_prediction(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job, which may write the table and read what it is given, loads no model: another process does."""
    bundle = registered(dev)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("loaded by the job"))
    predict(dev, landed(dev, save(tmp_path, patients(2)), bundle))
    code = tmp_path / "code"
    code.mkdir()
    (code / "crashing_worker.py").write_text(
        "import os, sys\nfrom pipelines.training import model_worker\n"
        "real = model_worker._predict\n"
        "def crash(model, kind, feed, outputs, answers):\n"
        "    if len(feed['features']) > 1:\n"
        "        os.kill(os.getpid(), 11)\n"
        "    real(model, kind, feed, outputs, answers)\n"
        "model_worker._predict = crash\n"
        "model_worker.main(int(sys.argv[1]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("pipelines.training.confined_model.WORKER", "crashing_worker")
    with pytest.raises(MlopsError, match="progression: the process that loads it was ended by the signal SIGSEGV"):
        predict(dev, landed(dev, save(tmp_path, patients(3, 11), "second.parquet"), bundle))
    assert [row["patient_id"] for row in rows(dev)] == [1, 2]


def test_no_personal_column_reaches_the_predictions(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    marked = patients(3, sex=[1, 2, 88_776_655], diary=["secret-marker"] * 3)
    predict(dev, landed(dev, save(tmp_path, marked), registered(dev)))
    listed = boto3.client("s3").list_objects_v2(Bucket=dev.lake_bucket)["Contents"]
    for item in listed:
        content = boto3.client("s3").get_object(Bucket=dev.lake_bucket, Key=item["Key"])["Body"].read()
        assert b"secret-marker" not in content and b"88776655" not in content
    text = json.dumps(rows(dev)) + json.dumps(events(dev))
    assert "secret-marker" not in text and "88776655" not in text
    assert not {"sex", "age", "diary"} & set(rows(dev)[0])


def test_what_was_personal_when_the_bundle_was_trained_is_in_no_reason(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    plain = progression_bundle()
    schema = json.loads(plain.files["schema.json"])
    next(each for each in schema["inputs"][0]["columns"] if each["name"] == "bmi")["personal"] = True
    made = with_file(plain, "schema.json", json.dumps(schema).encode())
    assert not is_personal(SOURCE.columns["bmi"]), "the contract does not say so any more"
    bundles.push(dev, made.manifest, made.files)
    evidence.attest(dev, made.manifest, GATES, example_build("dev"))
    predict(dev, landed(dev, save(tmp_path, patients(2, bmi=[30.0, 88.75])), made.digest))
    first, second = rows(dev)
    assert first["refused"] is None
    assert second["refused"] == "bmi: expected a number greater than 10 and less than 70"


def test_another_input_whose_digest_begins_alike_is_not_taken_for_this_one(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, snapshots = registered(dev), []
    for last, first in (("b", 1), ("c", 100)):
        monkeypatch.setattr(prediction_job, "digest_of_value", lambda _, last=last: f"sha256:{'a' * 12}{last * 52}")
        path = save(tmp_path, patients(3, first), f"{last}.parquet")
        snapshots.append(predict(dev, landed(dev, path, bundle)))
    saved = tmp_path / "saved.parquet"
    for snapshot, first in zip(snapshots, (1, 100), strict=True):
        assert save_predictions(dev, PREDICTIONS, snapshot, saved) == 3
        assert pq.read_table(saved)["patient_id"].to_pylist() == [first, first + 1, first + 2]


def test_the_same_input_and_bundle_are_predicted_once(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, second = registered(dev), registered(dev, seed=8)
    path = save(tmp_path, patients(10))
    snapshot, log = predict(dev, landed(dev, path, first)), list[str]()
    assert predict(dev, landed(dev, path, first), log) == snapshot
    assert log == [f"patients.parquet: predicted already, snapshot {snapshot}"]
    assert predict(dev, landed(dev, path, second)) != snapshot
    assert len(rows(dev)) == 20


def test_a_dataset_version_is_predicted_as_it_was(dev: EnvironmentDescriptor) -> None:
    bundle = registered(dev)
    table = open_table(dev, "diabetes-patients")
    kinds = table.scan().to_arrow().schema
    snapshots = []
    for first in (1, 11):
        given = patients(10, first, progression=[100.0] * 10).select(kinds.names).cast(kinds)
        snapshots.append(append(dev, table.refresh(), given.to_reader(), f"sha256:{first:064}", {}))
    request = PredictionRequest(bundle=bundle, version=VersionInput(dataset="diabetes-patients", snapshot=snapshots[0]))
    snapshot = predict(dev, request)
    assert [row["patient_id"] for row in rows(dev)] == list(range(1, 11))
    (version,) = list_versions(open_table(dev, PREDICTIONS))
    assert version.read == f"diabetes-patients@{snapshots[0]}"
    kept = predicted_versions(dev, [MODEL, "not-predicted"], "diabetes-patients", version.at)
    assert (kept_time(SOURCE).days, kept_time(DECLARED.dataset_contract(PREDICTIONS)).days) == (90, 400)
    assert kept == {snapshots[0]: f"a batch prediction of {MODEL} has read it"}, "table maintenance keeps it"
    assert predicted_versions(dev, [MODEL], "diabetes-patients", version.at + timedelta(seconds=1)) == {}
    assert predicted_versions(dev, [MODEL], "other", version.at) == {}
    # The version that was read is old enough to expire, its prediction not yet.
    later = version.at + kept_time(SOURCE)
    with mock.patch("pipelines.data.table_maintenance.compared_snapshots", return_value={}):
        planned, without = (plan_maintenance(dev, SOURCE, models, later).expiry for models in ([MODEL], []))
    assert planned.kept[snapshots[0]] == kept[snapshots[0]]
    assert snapshots[0] in {each.snapshot for each in without.expired}
    facts = LineageFacts(gathered=version.at, predictions=tuple(read_predictions(dev, MODEL)))
    start = find_prediction(facts, MODEL, "dev")
    lines = "\n".join(graph_lines(trace(build_graph(facts), [start], back=True, forward=False)))
    assert f"version dev/diabetes-patients@{snapshots[0]}" not in lines.splitlines()[0]
    assert f"dev/diabetes-patients@{snapshots[0]}" in lines and f"{MODEL}@{bundle}" in lines
    assert f"prediction dev/{MODEL}@{snapshot}" in lines


def test_the_maintenance_of_predictions_joins_their_files_and_keeps_their_lineage(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, log = DECLARED.dataset_contract(PREDICTIONS), list[str]()
    done = maintain_table(dev, declared, (), datetime.now(UTC), log.append)
    assert (set(done.values()), log) == ({0}, [f"{PREDICTIONS}: nothing was predicted yet"])
    bundle = registered(dev)
    predict(dev, landed(dev, save(tmp_path, patients(5)), bundle))
    table, version = open_table(dev, PREDICTIONS), {"mlops.input": f"{SOURCE.name}@7", "mlops.bundle": bundle}
    given = table.scan().to_arrow()
    for number in range(9):
        append(dev, table.refresh(), given.to_reader(), f"sha256:{number:064}", {"mlops.primary-key": "row", **version})
    before, facts = rows(dev), read_predictions(dev, MODEL)
    assert len(facts) == 10 and {fact.read for fact in facts} == {None, "7"}
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    work_in_sample(monkeypatch, tmp_path)
    assert data_command.main(["maintain", PREDICTIONS]) == 0
    later = datetime.now(UTC) + timedelta(days=399)
    assert maintain_table(dev, declared, (), later, log.append)["ExpiredVersions"] == 0
    done = maintain_table(dev, declared, (), later + timedelta(days=2), log.append)
    assert done["ExpiredVersions"] == 10, "all but the current version"
    versions = list_versions(open_table(dev, PREDICTIONS))
    assert [version.operation for version in versions] == ["overwrite"]
    assert rows(dev) == before
    assert len(current_files(open_table(dev, PREDICTIONS))) == 2
    assert read_predictions(dev, MODEL) == facts, "their bundles and inputs are on record"


def test_predictions_past_the_retention_leave_the_table_and_stay_on_record(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    model = DECLARED.model(MODEL)
    kept = model.model_copy(update={"batch": model.batch.model_copy(update={"retention_days": 500})})
    contract, log = predictions_contract(kept, SOURCE), list[str]()
    bundle = registered(dev)
    requests = [landed(dev, save(tmp_path, patients(rows), f"{rows}.parquet"), bundle) for rows in (3, 5)]
    first = predict(dev, requests[0])
    now = datetime.now(UTC)
    second = predict(dev, requests[1])

    def maintain(days: float, since: datetime = now) -> float:
        return maintain_table(dev, contract, (), since + timedelta(days=days), log.append)["RemovedRows"]

    assert maintain(499) == 0
    assert [each.snapshot for each in read_expired(dev, PREDICTIONS)] == [first]
    assert any("remove rows predicted before" in line for line in plan_lines(plan_maintenance(dev, contract, (), now)))
    assert maintain(500) == 3
    assert len(rows(dev)) == 5 and any("removed 3 rows predicted before" in line for line in log)
    assert maintain(501) == 5
    assert (rows(dev), maintain(502)) == ([], 0)
    found = {each.snapshot: (each.rows, each.bundle) for each in read_expired(dev, PREDICTIONS)}
    found |= {each.snapshot: (each.rows, each.bundle) for each in versions_of(dev)}
    assert found[first] == (3, bundle) and found[second] == (8, bundle)
    assert predict(dev, requests[0]) != first
    assert len(rows(dev)) == 3


def versions_of(dev: EnvironmentDescriptor) -> list[TableVersion]:
    return list_versions(open_table(dev, PREDICTIONS))


def test_the_event_names_the_input_the_bundle_and_the_predictions(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    bundle = registered(dev)
    snapshot = predict(dev, landed(dev, save(tmp_path, patients(5)), bundle))
    last = events(dev)[-1]
    assert last["eventType"] == "COMPLETE"
    assert [one["facets"]["version"]["datasetVersion"] for one in last["inputs"]][1] == bundle
    assert last["inputs"][0]["name"] == f"{PREDICTIONS}/patients.parquet"
    (output,) = last["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == snapshot
    assert set(output["facets"]["columnLineage"]["fields"]) == {"prediction", "patient_id"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (patients(3).drop_columns(["bmi"]), "found no bmi"),
        (patients(3, bmi=["a", "b", "c"]), "expected numbers, found string"),
        (patients(0), "expected rows, found none"),
        (patients(3, age=[1, 2, 3]), "expected a row that keeps the request schema, found none in 3"),
    ],
)
def test_an_input_that_cannot_be_predicted_leaves_nothing(
    dev: EnvironmentDescriptor, tmp_path: Path, table: pa.Table, message: str
) -> None:
    with pytest.raises(RefusedInputError, match=message):
        predict(dev, landed(dev, save(tmp_path, table), registered(dev)))
    assert events(dev)[-1]["eventType"] == "FAIL"
    assert list_versions(open_or_make_table(dev, DECLARED.dataset_contract(PREDICTIONS))) == []


def test_a_file_that_was_replaced_is_refused(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    request = landed(dev, save(tmp_path, patients(3)), registered(dev))
    landed(dev, save(tmp_path, patients(4)), request.bundle)
    with pytest.raises(RefusedInputError, match=r"patients\.parquet: expected sha256:"):
        predict(dev, request)


def test_a_bundle_that_is_not_there_or_not_signed_predicts_nothing(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    path = save(tmp_path, patients(3))
    with pytest.raises(bundles.UnknownBundleError):
        predict(dev, landed(dev, path, f"sha256:{1:064}"))
    made = progression_bundle()
    bundles.push(dev, made.manifest, made.files)
    with pytest.raises(MlopsError, match=r"evidence|provenance|evaluat"):
        predict(dev, landed(dev, path, made.digest))


def test_a_dataset_that_the_model_may_not_read_is_refused(dev: EnvironmentDescriptor) -> None:
    request = PredictionRequest(bundle=registered(dev), version=VersionInput(dataset="visits", snapshot="1"))
    with pytest.raises(RefusedInputError, match="may not predict visits"):
        predict(dev, request)


def test_many_predictions_at_once_lose_and_repeat_nothing(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    bundle = registered(dev)
    requests = [landed(dev, save(tmp_path, patients(10, first), f"{first}.parquet"), bundle) for first in (1, 11, 21)]
    failures: list[BaseException] = []

    def run(request: PredictionRequest) -> None:
        try:
            predict(dev, request)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(request,)) for request in (*requests, requests[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(row["patient_id"] for row in rows(dev)) == list(range(1, 31))
    assert len(list_versions(open_table(dev, PREDICTIONS))) == 3


KILLED = """
import os, signal, sys
from pipelines.prediction import __main__ as command, prediction_job
before, real = sys.argv[1], prediction_job.add_data_files

def kill(*args, **kwargs):
    if before == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

prediction_job.add_data_files = kill
command.main([sys.argv[2]])
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_that_is_killed_around_the_commit_and_runs_again_has_every_row_once(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    request = landed(dev, save(tmp_path, patients(10_000)), registered(dev))
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    monkeypatch.setenv(PREDICTION_REQUEST, request.model_dump_json())
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, when, MODEL], cwd=PROJECT, env=environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(rows(dev)) == (0 if when == "before" else 10_000)
    again = [sys.executable, "-m", "pipelines.prediction", MODEL]
    done = subprocess.run(again, cwd=PROJECT, env=environ, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"snapshot {list_versions(open_table(dev, PREDICTIONS))[0].snapshot}"
    assert [row["row"] for row in rows(dev)] == list(range(1, 10_001))


def test_an_input_that_is_refused_has_its_own_exit_status(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Project, "find", lambda: DECLARED)
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    assert command.main([MODEL]) == 1
    assert PREDICTION_REQUEST in capsys.readouterr().err
    request = landed(dev, save(tmp_path, patients(0)), registered(dev))
    monkeypatch.setenv(PREDICTION_REQUEST, request.model_dump_json())
    assert command.main([MODEL]) == command.REFUSED
    assert "expected rows, found none" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_predictions_are_saved_in_the_order_of_the_input(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("pipelines.data.data_files.ROW_GROUP_BYTES", 1 << 16)
    monkeypatch.setattr(prediction_job, "ROWS_A_LINE", 10_000)
    monkeypatch.setattr("pipelines.data.data_files.DATA_FILE_BYTES", 1 << 14)
    bundle = registered(dev)
    predict(dev, landed(dev, save(tmp_path, patients(10), "other.parquet"), bundle))
    log: list[str] = []
    snapshot = predict(dev, landed(dev, save(tmp_path, patients(30_000, 5)), bundle), log)
    assert next(line for line in log if "so far" in line) == "12288 rows so far, 0 of them refused"
    assert len(list(open_table(dev, PREDICTIONS).scan().plan_files())) > 3
    path = tmp_path / f"out{suffix}"
    assert save_predictions(dev, PREDICTIONS, snapshot, path) == 30_000
    if suffix == ".parquet":
        saved = pq.read_table(path)
        assert saved["row"].to_pylist() == list(range(1, 30_001))
        assert saved.schema.metadata[b"mlops.bundle"] == bundle.encode()
    else:
        with path.open() as file:
            found = list(csv.DictReader(file))
        assert [int(row["patient_id"]) for row in found] == list(range(5, 30_005))
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".partial")] == []


def test_a_file_that_cannot_be_written_does_not_appear(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    snapshot = predict(dev, landed(dev, save(tmp_path, patients(10)), registered(dev)))
    for path, message in ((tmp_path / "a.txt", "ends in"), (tmp_path / "no" / "a.csv", "folder does not exist")):
        with pytest.raises(MlopsError, match=message):
            save_predictions(dev, PREDICTIONS, snapshot, path)
    with pytest.raises(MlopsError, match="has no snapshot"):
        save_predictions(dev, PREDICTIONS, "5", tmp_path / "a.csv")


def test_a_table_of_predictions_that_nobody_made_says_what_makes_it(dev: EnvironmentDescriptor) -> None:
    with pytest.raises(MlopsError, match=f"mlops predict {MODEL} --file FILE --env dev"):
        open_table(dev, PREDICTIONS)
    assert read_predictions(dev, MODEL) == []


def test_attempts_to_commit_end(dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.exceptions import CommitFailedException

    def conflict(*_: Any, **__: Any) -> str:
        raise CommitFailedException

    monkeypatch.setattr(prediction_job, "add_data_files", conflict)
    monkeypatch.setattr(prediction_job, "LONGEST_PAUSE", 0.0)
    with pytest.raises(MlopsError, match="20 commits"):
        predict(dev, landed(dev, save(tmp_path, patients(3)), registered(dev)))
