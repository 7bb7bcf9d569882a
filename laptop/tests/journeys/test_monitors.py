"""A dataset's monitor, from its provisioning to an alarm, by the Job that the CronJob runs on AWS, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from laptop import stack_operations
from laptop.demo.material import DATASET, batches, write_heavier
from laptop.github.hosting import REPOSITORY
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests, publish_locally
from laptop.tests.journeys.laptop_of_journeys import own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from pipelines.cli.main import mlops
from pipelines.promotion.images import pin_images
from tests.http_responder import http_server
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class MonitoredDataset:
    """What the commands printed, and the account afterwards.

    Attributes:
        empty: output of the monitor before the first delivery.
        first: after the first delivery.
        drifted: after a delivery of heavier patients.
        maintained: output of the maintenance of the table after that, first only planned.
        version: the newest version of the dataset, as it is shown.
        events: OpenLineage events that the endpoint of the environment got: job and type.
        folder: where commands write files.
        account: clients of the laptop's account, by service.
    """

    empty: str
    first: str
    drifted: str
    maintained: tuple[str, str]
    version: str
    events: list[tuple[str, str]]
    folder: Path
    account: dict[str, Any]


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(mlops, [*arguments, "--env", "dev"])
    assert done.exception is None, done.output
    return done


def deliver(file: Path) -> None:
    run("land", DATASET, str(file))
    run("ingest", DATASET)


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredDataset]:
    folder = tmp_path_factory.mktemp("monitors")
    events: list[tuple[str, str]] = []

    def receive(_: str, path: str, body: bytes) -> tuple[int, bytes]:
        assert path == "/api/v1/lineage"
        event = json.loads(body)
        events.append((event["job"]["name"], event["eventType"]))
        return 201, b""

    with own_home(folder) as (home, patch), http_server(receive) as endpoint:
        project = one_environment(folder / "source")
        pin_images(project, "dev", local_digests(project))
        edit(project.root / "Pulumi.dev.yaml", "config", "mlops:environment", "openlineage", value={"url": endpoint})
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        for name, value in running.environ().items():
            patch.setenv(name, value)
        here = LaptopTarget(project)
        stack_operations.bootstrap(project.root, home, REPOSITORY)
        publish_locally(here)
        here.apply("up", "dev")
        first = batches(project, folder / "batches")["first"]
        empty = run("monitor", "run", DATASET).output
        deliver(first)
        after_first = run("monitor", "run", DATASET).output
        deliver(write_heavier(first, folder / "heavier.csv"))
        drifted = run("monitor", "run", DATASET).output
        maintained = run("data", "maintain", DATASET).output, run("data", "maintain", DATASET, "--apply").output
        version = run("data", "show", DATASET, "latest").output
        account = {service: boto3.client(service) for service in ("cloudwatch", "s3")}
        yield MonitoredDataset(empty, after_first, drifted, maintained, version, events, folder, account)


def test_before_the_first_delivery_nothing_is_known(monitored: MonitoredDataset) -> None:
    assert f"{DATASET} in dev: unknown" in monitored.empty
    assert "no delivery yet" in monitored.empty


def test_the_first_delivery_has_nothing_to_be_compared_with(monitored: MonitoredDataset) -> None:
    assert f"{DATASET} in dev: unknown" in monitored.first
    assert "alarm" not in monitored.first


def test_drift_is_an_alarm_that_names_the_column_that_moved(monitored: MonitoredDataset) -> None:
    assert f"{DATASET} in dev: alarm" in monitored.drifted
    (line,) = [line for line in monitored.drifted.splitlines() if "alarm   drift" in line]
    assert "drift of bmi" in line


def test_show_list_and_report_read_what_the_job_wrote(monitored: MonitoredDataset) -> None:
    assert "drift of bmi" in run("monitor", "show", DATASET).output
    names = run("monitor", "list", DATASET).output.splitlines()
    assert [line.split()[1] for line in names] == ["alarm", "unknown", "unknown"]
    assert "no delivery yet" in run("monitor", "show", DATASET, "--report", names[-1].split()[0]).output
    page = monitored.folder / "report.html"
    run("monitor", "report", DATASET, "--output", str(page))
    assert "<code>bmi</code>" in page.read_text()


def test_every_run_sends_metrics_that_the_provisioned_alarms_watch(monitored: MonitoredDataset) -> None:
    cloudwatch = monitored.account["cloudwatch"]
    alarms = {each["AlarmName"]: each for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert {f"mlops-dev-monitor-{DATASET}-alarm", f"mlops-dev-monitor-{DATASET}-silent"} <= set(alarms)
    sent = {
        (each["Namespace"], each["MetricName"], *((d["Name"], d["Value"]) for d in each["Dimensions"]))
        for each in cloudwatch.list_metrics()["Metrics"]
    }
    for name in ("alarm", "silent"):
        alarm = alarms[f"mlops-dev-monitor-{DATASET}-{name}"]
        dimensions = ((each["Name"], each["Value"]) for each in alarm["Dimensions"])
        assert (alarm["Namespace"], alarm["MetricName"], *dimensions) in sent


def test_the_job_cares_for_the_table_and_its_alarm_sees_that_it_ran(monitored: MonitoredDataset) -> None:
    planned, done = monitored.maintained
    assert "it is the current version" in planned and "nothing to do" in planned
    assert f"| {DATASET}: nothing to do" in done
    cloudwatch = monitored.account["cloudwatch"]
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=[f"mlops-dev-maintain-{DATASET}-silent"])["MetricAlarms"]
    sent = cloudwatch.list_metrics(Namespace=alarm["Namespace"], MetricName=alarm["MetricName"])["Metrics"]
    assert alarm["Dimensions"] in [each["Dimensions"] for each in sent]
    assert len(run("data", "log", DATASET).output.splitlines()) == 2


def test_the_jobs_send_their_lineage_to_the_endpoint_of_the_environment(monitored: MonitoredDataset) -> None:
    for job, runs in ((f"ingest-{DATASET}", 2), (f"monitor-{DATASET}", 3), (f"maintain-{DATASET}", 1)):
        assert [kind for name, kind in monitored.events if name == job] == ["START", "COMPLETE"] * runs


def test_every_landed_row_is_accounted_for(monitored: MonitoredDataset) -> None:
    shown = run("monitor", "show", DATASET, "--all").output
    assert "landed = " in shown and "over the life of the table" in shown


def test_a_version_is_shown_without_what_is_protected(monitored: MonitoredDataset) -> None:
    assert "bmi  double" in monitored.version
    assert "sex  int (not shown)" in monitored.version and "sex=" not in monitored.version
    assert "patient_id=" in monitored.version


def test_no_report_holds_a_value_of_a_key(monitored: MonitoredDataset) -> None:
    shown = run("monitor", "show", DATASET, "--json").output
    assert '"patient_id": "its values are unique"' in shown
    assert '"column": "patient_id"' not in shown
