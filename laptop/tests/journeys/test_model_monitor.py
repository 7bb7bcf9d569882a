"""A model's monitor on requests that it answered: all well, then shifted inputs, then labels that tell it was wrong.

The monitor is the Job that the CronJob runs on AWS, too, with its own role.
"""

from __future__ import annotations

import csv
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from click.testing import CliRunner, Result

from laptop.demo.material import MODEL, batches
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from laptop.tests.journeys.test_rollbacks import WAIT_SECONDS, Trial
from pipelines.cli.main import mlops
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LABELS = "progression-labels"
ROWS = 250
FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def labels_contract() -> dict[str, Any]:
    """Return the contract of the labels: the id of the request, and what became of the patient."""
    properties = [
        {"name": "id", "logicalType": "string", "physicalType": "string", "required": True, "primaryKey": True},
        {"name": "progression", "logicalType": "integer", "physicalType": "int", "required": True},
    ]
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"urn:mlops:contract:{LABELS}",
        "name": LABELS,
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": LABELS, "physicalName": LABELS.replace("-", "_"), "properties": properties}],
    }


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(mlops, [*arguments, "--env", "dev"])
    assert done.exception is None, done.output
    return done


@dataclass
class MonitoredModel:
    """Output of three runs of a model's monitor.

    Attributes:
        well: after requests like the training data, and right labels.
        shifted: after as many requests of heavier patients.
        wrong: after labels for those that contradict the predictions.
        dev: the environment.
    """

    dev: EnvironmentDescriptor
    well: str = ""
    shifted: str = ""
    wrong: str = ""


def send(dev: EnvironmentDescriptor, prefix: str, patients: list[dict[str, str]], change: float = 0.0) -> None:
    """Send a request for each patient, and wait until all are logged."""
    url = f"{dev.endpoints[MODEL]}/v2/models/{MODEL}/infer"
    for number, patient in enumerate(patients):
        row = [float(patient[name]) + (change if name == "bmi" else 0.0) for name in FEATURES]
        tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        body = json.dumps({"id": f"{prefix}-{number}", "inputs": [tensor]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
    await_true(lambda: logged(dev, prefix) == len(patients), f"the requests {prefix} are not in the inference log")


def logged(dev: EnvironmentDescriptor, prefix: str) -> int:
    """Count the logged requests whose id starts with a prefix."""
    s3, found = boto3.client("s3"), 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dev.logs_bucket, Prefix=f"inference/{MODEL}/2"):
        for each in page.get("Contents", ()):
            lines = s3.get_object(Bucket=dev.logs_bucket, Key=each["Key"])["Body"].read().splitlines()
            found += sum(json.loads(line)["id"].startswith(prefix) for line in lines)
    return found


def await_true(holds: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, problem
        time.sleep(0.5)


def label(folder: Path, prefix: str, patients: list[dict[str, str]], change: int = 0) -> None:
    """Land and ingest the labels of requests."""
    file = folder / f"{prefix}.csv"
    lines = [
        f"{prefix}-{number},{int(float(patient['progression'])) + change}" for number, patient in enumerate(patients)
    ]
    file.write_text("\n".join(["id,progression", *lines]) + "\n")
    run("land", LABELS, str(file))
    run("ingest", LABELS)


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredModel]:
    folder = tmp_path_factory.mktemp("model-monitor")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        project.contract_file(LABELS).write_text(yaml.safe_dump(labels_contract(), sort_keys=False))
        settings = {"minimum_rows": 100, "labels": {"dataset": LABELS}}
        edit(project.model_file(MODEL), "monitoring", value=settings)
        edit(project.model_file(MODEL), "gates", "latency", "p99_ms", value=1000.0)  # this machine may be busy
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        trial = Trial(hub, here.descriptor("dev"), runs={})
        first = batches(Project(project.root), folder / "batches")["first"]
        with hub.serving():
            trial.release(first)
        edit(project.release_file(MODEL, "dev"), "bundle", value=hub_release(here))
        made = MonitoredModel(here.descriptor("dev"))
        with first.open() as file:
            patients = [row for row in csv.DictReader(file) if all(row[name] not in ("", "n/a") for name in row)]
        patients = [row for row in patients if float(row["bmi"]) < 60][:ROWS]
        send(made.dev, "same", patients)
        label(folder, "same", patients)
        made.well = run("monitor", "run", MODEL).output
        send(made.dev, "heavier", patients, change=6.0)
        made.shifted = run("monitor", "run", MODEL).output
        label(folder, "heavier", patients, change=150)
        made.wrong = run("monitor", "run", MODEL).output
        yield made


def hub_release(target: LaptopTarget) -> str:
    """Return the digest that is live."""
    from pipelines.registry.ledger import Ledger

    head = Ledger(target.descriptor("dev"), MODEL).head()
    assert head is not None
    assert head.event.live is not None
    return str(head.event.live)


def test_requests_like_the_training_data_with_right_labels_are_no_alarm(monitored: MonitoredModel) -> None:
    assert f"{MODEL} in dev: " in monitored.well
    assert "alarm " not in monitored.well, monitored.well
    assert f"{ROWS} requests with {ROWS} rows" in monitored.well
    assert f"{ROWS} of {ROWS} labels belong" in monitored.well


def test_shifted_requests_are_input_drift_of_the_feature_that_moved(monitored: MonitoredModel) -> None:
    assert f"{MODEL} in dev: alarm" in monitored.shifted
    alarms = [line for line in monitored.shifted.splitlines() if "alarm   input-drift" in line]
    assert len(alarms) == 1
    assert "input-drift of bmi" in alarms[0]
    assert "alarm   accuracy" not in monitored.shifted


def test_labels_that_contradict_the_predictions_are_an_accuracy_alarm(monitored: MonitoredModel) -> None:
    assert "alarm   accuracy of rmse" in monitored.wrong


def test_show_list_and_report_read_what_the_job_wrote(monitored: MonitoredModel, tmp_path: Path) -> None:
    assert "input-drift of bmi" in run("monitor", "show", MODEL).output
    verdicts = [line.split()[1] for line in run("monitor", "list", MODEL).output.splitlines()]
    assert verdicts[:2] == ["alarm", "alarm"]
    assert len(verdicts) == 3
    page = tmp_path / "report.html"
    run("monitor", "report", MODEL, "--output", str(page))
    assert "<code>bmi</code>" in page.read_text()


def test_every_run_sends_metrics_that_the_provisioned_alarms_watch(monitored: MonitoredModel) -> None:
    cloudwatch = boto3.client("cloudwatch")
    alarms = {each["AlarmName"]: each for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    sent = {
        (each["Namespace"], each["MetricName"], *((d["Name"], d["Value"]) for d in each["Dimensions"]))
        for each in cloudwatch.list_metrics()["Metrics"]
    }
    for name in ("alarm", "silent"):
        alarm = alarms[f"mlops-dev-observe-{MODEL}-{name}"]
        dimensions = ((each["Name"], each["Value"]) for each in alarm["Dimensions"])
        assert (alarm["Namespace"], alarm["MetricName"], *dimensions) in sent
    assert cloudwatch.list_dashboards()["DashboardEntries"][0]["DashboardName"] == "mlops-dev-models"
