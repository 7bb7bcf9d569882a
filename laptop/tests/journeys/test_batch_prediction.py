"""A file and a dataset version predicted by batch, by the Job that runs on AWS, too, with its own role."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from laptop.demo.material import DATASET, MODEL, batches
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from laptop.tests.journeys.test_model_monitor import hub_release
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.promotion.predict_batch import BatchRun, predict_file
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PREDICTIONS = f"{MODEL}-predictions"
MANY = 400_000


@dataclass
class Live:
    """A model that is live in dev.

    Attributes:
        here: the laptop.
        bundle: digest of the live bundle.
        folder: where commands write files.
        patients: rows to predict, as a file.
        printed: what the first prediction printed.
    """

    here: LaptopTarget
    bundle: str
    folder: Path
    patients: Path
    printed: str = ""
    lines: list[str] = field(default_factory=list)

    def predict(self, file: Path, **options: Any) -> BatchRun:
        return predict_file(self.here, MODEL, "dev", file, self.lines.append, **options)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(mlops, [*arguments, "--env", "dev"])


def printed(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exception is None, done.output
    return done.output


def refusal(*arguments: str) -> str:
    """Return what a command that must fail says."""
    done = run(*arguments)
    assert isinstance(done.exception, MlopsError), done.output
    return str(done.exception)


def repeated(source: Path, rows: int, path: Path) -> Path:
    """Write the rows of a file again and again, each with its own key."""
    table = pq.read_table(source)
    index = [number % table.num_rows for number in range(rows)]
    many = table.take(index).set_column(0, "patient_id", pa.array(range(1, rows + 1), pa.int64()))
    pq.write_table(many, path, row_group_size=50_000)
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("batch-prediction")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        edit(project.model_file(MODEL), "gates", "latency", "p99_ms", value=1000.0)  # this machine may be busy
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        trial = Trial(hub, here.descriptor("dev"), runs={})
        first = batches(Project(project.root), folder / "batches")["first"]
        with hub.serving():
            trial.release(first)
        bundle = hub_release(here)
        edit(project.release_file(MODEL, "dev"), "bundle", value=bundle)
        kinds = {"bmi": pa.float64()}
        options = pyarrow.csv.ConvertOptions(column_types=kinds, null_values=["", "n/a"])
        table = pyarrow.csv.read_csv(first, convert_options=options).drop_columns(["progression"])
        patients = folder / "patients.parquet"
        pq.write_table(table, patients)
        made = Live(LaptopTarget(Project(project.root)), bundle, folder, patients)
        made.printed = printed("predict", MODEL, "--file", str(patients), "--output", str(folder / "out.parquet"))
        yield made


def test_a_file_is_predicted_by_the_live_bundle_and_saved(live: Live) -> None:
    given, found = pq.read_table(live.patients), pq.read_table(live.folder / "out.parquet")
    assert found["patient_id"].to_pylist() == given["patient_id"].to_pylist()
    assert set(found["bundle"].to_pylist()) == {live.bundle}
    assert f"predicted by {live.bundle}" in live.printed
    assert f"wrote {given.num_rows} rows" in live.printed
    refused = [row for row in found.to_pylist() if row["prediction"] is None]
    assert 0 < len(refused) < 20
    assert all(row["refused"] for row in refused)


def test_the_predictions_are_those_of_the_endpoint(live: Live, tmp_path: Path) -> None:
    names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    rows = [
        (given, found["prediction"])
        for given, found in zip(
            pq.read_table(live.patients).to_pylist(),
            pq.read_table(live.folder / "out.parquet").to_pylist(),
            strict=True,
        )
        if found["refused"] is None
    ][:5]
    data = [float(given[name]) for given, _ in rows for name in names]
    request = tmp_path / "request.json"
    tensor = {"name": "features", "shape": [len(rows), len(names)], "datatype": "FP32", "data": data}
    request.write_text(json.dumps({"inputs": [tensor]}))
    answer = json.loads(printed("predict", MODEL, "--file", str(request)).partition("response  ")[2])
    assert answer["outputs"][0]["data"] == [prediction for _, prediction in rows]


def test_the_result_is_a_dataset_version_without_personal_data_and_with_lineage(live: Live) -> None:
    assert "predicted from patients-" in printed("data", "log", PREDICTIONS)
    names = pq.read_schema(live.folder / "out.parquet").names
    assert names == ["batch", "row", "patient_id", "prediction", "refused", "bundle"]
    traced = printed("lineage", "prediction", MODEL)
    assert f"{MODEL}@{live.bundle}" in traced
    assert f"dev/{MODEL}/patients-" in traced
    assert f"dev/{DATASET}/first.csv" in traced, "back to the landing file that the bundle was trained on"


def test_the_same_file_is_predicted_once(live: Live) -> None:
    again = printed("predict", MODEL, "--file", str(live.patients))
    assert "predicted already" in again
    assert len(printed("data", "log", PREDICTIONS).splitlines()) >= 1
    csv = live.folder / "again.csv"
    printed("predict", MODEL, "--file", str(live.patients), "--output", str(csv))
    assert len(csv.read_text().splitlines()) == pq.read_table(live.patients).num_rows + 1


def test_a_dataset_version_is_predicted(live: Live) -> None:
    output = live.folder / "version.parquet"
    assert DATASET in printed("predict", MODEL, "--dataset", f"{DATASET}@first.csv", "--output", str(output))
    assert pq.read_table(output).num_rows > 300
    traced = printed("lineage", "prediction", MODEL)
    assert f"inputs:\n  dev/{DATASET}@" in traced


def test_a_job_that_is_killed_midway_runs_again_and_repeats_no_row(live: Live) -> None:
    """With SIGKILL, while the job reads its input; Kubernetes starts its pod again."""
    many = repeated(live.patients, MANY, live.folder / "many.parquet")
    ended: list[BatchRun] = []
    output = live.folder / "many-out.parquet"
    caller = threading.Thread(target=lambda: ended.append(live.predict(many, output=output)))
    caller.start()
    deadline = time.monotonic() + 120
    while not (found := reading("input.parquet")):
        assert time.monotonic() < deadline, live.lines
        time.sleep(0.02)
    os.kill(found[0], signal.SIGKILL)
    caller.join(timeout=300)
    assert ended, live.lines
    assert ended[0].rows == MANY
    assert pq.read_table(output, columns=["row"])["row"].to_pylist() == list(range(1, MANY + 1))


def reading(name: str) -> list[int]:
    """Return the processes that have a file of a batch prediction open."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            opened = [str(each.readlink()) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(f"/{name}" in each and "/predict-" in each for each in opened):
            found.append(int(process.name))
    return found


def test_two_predictions_at_once_are_both_there(live: Live) -> None:
    files = [repeated(live.patients, rows, live.folder / f"{rows}.parquet") for rows in (1000, 2000)]
    ended: list[BatchRun] = []
    callers = [threading.Thread(target=lambda file=file: ended.append(live.predict(file))) for file in files]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=300)
    assert len({run.snapshot for run in ended}) == 2, live.lines
    logged = printed("data", "log", PREDICTIONS)
    assert "1000 added" in logged
    assert "2000 added" in logged


def test_what_cannot_be_predicted_is_refused_before_a_job_starts(live: Live) -> None:
    bad = live.folder / "bad.parquet"
    table = pq.read_table(live.patients)
    for change, message in (
        (table.drop_columns(["bmi"]), "found no bmi"),
        (table.slice(0, 0), "expected rows, found none"),
        (table.set_column(1, "age", pa.array(["x"] * table.num_rows)), "'age': expected numbers, found string"),
    ):
        pq.write_table(change, bad)
        assert message in refusal("predict", MODEL, "--file", str(bad))
    bad.write_bytes(live.patients.read_bytes()[:-50])
    assert "expected a Parquet file" in refusal("predict", MODEL, "--file", str(bad))
    unknown = f"sha256:{1:064}"
    assert "has no bundle" in refusal("predict", MODEL, "--file", str(live.patients), "--bundle", unknown)
    assert "may not predict nothing" in refusal("predict", MODEL, "--dataset", "nothing")
    with pytest.raises(MlopsError, match="ends in"):
        live.predict(live.patients, output=live.folder / "out.txt")
