"""No personal value of a landing file or a request is in anything that the laptop writes, except in tables.

Two columns are classified: a feature without listed values, and a name that no model reads. Marks are planted in both,
in good rows, in a row that goes to quarantine, and in requests. Then every object, log, comment and page is searched.
"""

from __future__ import annotations

import csv
import io
import json
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from laptop.demo.material import DATASET, MODEL, batches
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from laptop.tests.journeys.test_model_monitor import FEATURES, await_true, hub_release, logged
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cli.main import mlops
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.registry import store
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Spelled so that a copy of this file does not have the marks.
BMI = 71 + 2**-5
"""Planted value of the feature; 32 bits hold it exactly, so it is written in one way only."""

NAME = " ".join(("Quintessa", "Marlowe-Voss"))
MARKS = (str(BMI).encode(), NAME.encode(), NAME.lower().encode())
TABLE_BUCKETS = ("landing", "lake")
"""Buckets with the data itself: landing files, tables and quarantined rows."""

REQUESTS = 120


@dataclass
class Written:
    """Everything that was written.

    Attributes:
        dev: the environment.
        places: name → content of objects outside of tables, of files of the laptop, and of output of commands.
        tables: the same of objects with table data.
        monitor: output of the model's monitor.
        compacted: output of two compactions, a day apart.
        keys: keys of the inference log after each of them.
    """

    dev: EnvironmentDescriptor
    places: dict[str, bytes] = field(default_factory=dict)
    tables: dict[str, bytes] = field(default_factory=dict)
    monitor: str = ""
    compacted: list[str] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)


def classify(project: Project) -> None:
    """Classify the feature `bmi`, and add a column for names."""
    file = project.contract_file(DATASET)
    document = yaml.safe_load(file.read_text())
    columns = document["schema"][0]["properties"]
    next(column for column in columns if column["name"] == "bmi")["classification"] = "confidential"
    columns.append({"name": "patient_name", "logicalType": "string", "classification": "confidential"})
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def plant(file: Path) -> None:
    """Plant the marks into a landing file: in six good rows, and in one that breaks the contract."""
    head, *rows = list(csv.reader(io.StringIO(file.read_text())))
    for number, row in enumerate(rows):
        row.append(NAME if number < 7 else f"patient {number}")
        if number < 7:
            row[head.index("bmi")] = str(BMI)
        if number == 6:
            row[head.index("age")] = "999"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([[*head, "patient_name"], *rows])


def send(dev: EnvironmentDescriptor, row: list[float], id_: str) -> int:
    tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    body = json.dumps({"id": id_, "inputs": [tensor]}).encode()
    url = f"{dev.endpoints[MODEL]}/v2/models/{MODEL}/infer"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def readable(content: bytes) -> bytes:
    """Return content with what compression hides: Parquet as text, and compressed objects of git."""
    if content[:4] == b"PAR1":
        return content + str(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
    try:
        return content + zlib.decompress(content)
    except zlib.error:
        return content


def objects() -> Iterator[tuple[str, str, bytes]]:
    """Yield bucket, key and content of every version of every object."""
    s3 = boto3.client("s3")
    for bucket in (each["Name"] for each in s3.list_buckets()["Buckets"]):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for each in page.get("Versions", ()):
                one = s3.get_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
                yield bucket, f"{each['Key']}@{each['VersionId']}", readable(one["Body"].read())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("personal-data")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        classify(project)
        edit(project.model_file(MODEL), "gates", "latency", "p99_ms", value=1000.0)  # this machine may be busy
        edit(project.model_file(MODEL), "monitoring", value={"minimum_rows": 100})
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        made = Written(here.descriptor("dev"))
        first = batches(Project(project.root), folder / "batches")["first"]
        plant(first)

        def run(*arguments: str) -> str:
            output = CliRunner().invoke(mlops, [*arguments]).output
            name = " ".join(arguments)
            made.places[f"mlops {name}"] = made.places.get(f"mlops {name}", b"") + output.encode()
            return output

        with hub.serving():
            trial = Trial(hub, made.dev, runs={})
            trial.release(first)
        made.dev = here.descriptor("dev")
        with first.open() as file:
            patient = next(row for row in csv.DictReader(file) if row["patient_name"] == NAME)
        row = [float(patient[name]) for name in FEATURES]
        assert {send(made.dev, row, f"good-{number}") for number in range(REQUESTS)} == {200}
        assert send(made.dev, [-1.0, *row[1:]], "bad") == 400
        await_true(lambda: logged(made.dev, "good-") == REQUESTS, "the requests are not in the inference log")
        edit(project.release_file(MODEL, "dev"), "bundle", value=hub_release(here))
        look_around(made, run, first, folder)
        for key, content in ((f"{bucket}/{key}", content) for bucket, key, content in objects()):
            kind = made.tables if any(f"-{name}-" in key.partition("/")[0] for name in TABLE_BUCKETS) else made.places
            kind[key] = content
        files = (path for path in sorted(home.rglob("*")) if path.is_file() and not path.is_symlink())
        made.places |= {str(path): readable(path.read_bytes()) for path in files}
        yield made


def look_around(made: Written, run: Any, file: Path, folder: Path) -> None:
    """Run the commands that show data, and the jobs that read the inference log."""
    made.monitor = run("monitor", "run", MODEL, "--env", "dev")
    run("monitor", "report", MODEL, "--env", "dev", "--output", str(folder / "report.html"))
    made.places["report.html"] = (folder / "report.html").read_bytes()
    run("monitor", "run", DATASET, "--env", "dev", "--kind", "data")
    run("contract", "test", DATASET, str(file))
    run("contract", "show", DATASET)
    run("data", "log", DATASET, "--env", "dev")
    run("data", "diff", DATASET, "latest", "latest", "--env", "dev")
    run("data", "list", DATASET, "--env", "dev")
    run("data", "show", DATASET, file.name, "--env", "dev")
    run("lineage", "file", DATASET, file.name)
    run("catalog", "list", "--env", "dev")
    run("catalog", "render", "--env", "dev", "--output", str(folder / "catalog"))
    for page in (folder / "catalog").rglob("*.html"):
        made.places[page.name] = page.read_bytes()
    run("status")
    for _ in range(2):
        run("laptop", "pass-days", "1", "--env", "dev")
        made.compacted.append(run("monitor", "compact", MODEL, "--env", "dev"))
        listed = store.listing(made.dev.logs_bucket, f"inference/{MODEL}/2")
        made.keys.append([each.key for each in listed])


def found_in(places: dict[str, bytes]) -> dict[str, list[bytes]]:
    return {name: marks for name, content in places.items() if (marks := [mark for mark in MARKS if mark in content])}


def test_the_search_finds_the_marks_where_they_may_be(written: Written) -> None:
    """Otherwise the other tests could not fail."""
    found = found_in(written.tables)
    assert any("-landing-" in name for name in found)
    assert any("/quarantine/" in name for name in found)
    assert any(name.partition("@")[0].endswith(".parquet") and "/data/" in name for name in found)


def test_no_mark_is_anywhere_else(written: Written) -> None:
    assert len(written.places) > 50
    for part in ("inference/", "bundles/", "lineage/", "monitoring/", "report.html", "mlops contract test"):
        assert any(part in name for name in written.places), part
    found = found_in(written.places)
    assert not found, sorted(found)


def test_what_is_not_personal_is_logged_and_the_record_names_what_is_withheld(written: Written) -> None:
    logs = [content for name, content in written.places.items() if "/inference/" in name and ".jsonl@" in name]
    records = [json.loads(line) for content in logs for line in content.splitlines()]
    good = [each for each in records if str(each.get("id", "")).startswith("good-")]
    assert len(good) >= REQUESTS
    assert {tuple(each["withheld"]) for each in good} == {("sex", "bmi")}
    assert {each["inputs"]["features"][0][FEATURES.index("bmi")] for each in good} == {None}
    assert all(each["inputs"]["features"][0][FEATURES.index("s1")] for each in good)
    assert all(len(each["groups"]["sex"]) == 1 for each in good)


def test_the_monitor_says_what_it_cannot_see(written: Written) -> None:
    assert "input-drift of bmi" in written.monitor
    assert "not logged: the contract classifies it as personal" in written.monitor
    assert f"{REQUESTS} requests with {REQUESTS} rows" in written.monitor


def test_the_job_compacts_the_log_and_removes_what_it_replaced_a_day_later(written: Written) -> None:
    first, second = written.compacted
    assert "objects compacted to" in first, first
    assert "compacted objects removed" in second, second
    kinds = [{key.rpartition(".")[2] for key in keys} for keys in written.keys]
    assert kinds == [{"jsonl", "parquet"}, {"parquet"}], written.keys
