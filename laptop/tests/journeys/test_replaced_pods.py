"""Every process of an endpoint is replaced, and S3 fails, while requests run: none fails.

The inference log has all of them, but for those that servers could not write and count as lost.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import boto3
import pytest
from lightkube.resources.core_v1 import Pod

from laptop.demo.material import MODEL, batches
from laptop.faults import Faults
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from laptop.tests.journeys.test_model_monitor import await_true
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import served_bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.names import serving_name
from pipelines.declarations.project import Project
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_reports import find_report, read_model_report
from pipelines.promotion.images import pin_images
from pipelines.targets.workloads import run_model_monitor_job
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROW = [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0]
CALLERS = 4


S3_FAULTS = {"s3-throttled": 8.0, "s3-slow": 12.0, "s3-down": 60.0}
"""Fault → seconds. A server gives an object up after about half a minute."""


@dataclass
class Sent:
    """Results of requests.

    Attributes:
        answered: ids of the answered requests.
        failed: one message for each failed request.
    """

    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass
class Replaced(Sent):
    """Results of the requests that were sent while pods were replaced.

    Attributes:
        before, after: names of the pods.
        logged: ids in the inference log.
    """

    before: set[str] = field(default_factory=set)
    after: set[str] = field(default_factory=set)
    logged: list[str] = field(default_factory=list)


@dataclass
class Disturbed(Sent):
    """Results of the requests that were sent while S3 failed.

    Attributes:
        logged: ids of them in the inference log.
        lost: number of records that the servers counted as lost.
        report: what the monitor found afterwards.
    """

    logged: list[str] = field(default_factory=list)
    lost: int = 0
    report: ModelMonitorReport | None = None


@dataclass(frozen=True)
class Story:
    """Results for one endpoint: its pods are replaced, then its requests are disturbed."""

    replaced: Replaced
    disturbed: Disturbed


def ready_pods(dev: EnvironmentDescriptor) -> set[str]:
    """Return the names of the pods that are ready and do not end."""
    with connect(dev.namespace) as client:
        pods = list(client.list(Pod, labels={"app.kubernetes.io/name": serving_name(MODEL)}))
    return {
        str(pod.metadata.name)
        for pod in pods
        if pod.metadata is not None
        and pod.metadata.deletionTimestamp is None
        and any(one.type == "Ready" and one.status == "True" for one in (pod.status and pod.status.conditions) or ())
    }


@contextmanager
def callers(dev: EnvironmentDescriptor, prefix: str, made: Sent) -> Iterator[None]:
    """Send requests until the block ends."""
    ended = threading.Event()
    threads = [threading.Thread(target=call, args=(dev, f"{prefix}{at}", made, ended)) for at in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def call(dev: EnvironmentDescriptor, caller: str, made: Sent, ended: threading.Event) -> None:
    url = f"{dev.endpoints[MODEL]}/v2/models/{MODEL}/infer"
    number = 0
    while not ended.is_set():
        id_ = f"{caller}-{number}"
        number += 1
        tensor = {"name": "features", "shape": [1, 10], "datatype": "FP32", "data": ROW}
        body = json.dumps({"id": id_, "inputs": [tensor]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
            made.answered.append(id_)
        except OSError as error:
            made.failed.append(f"{id_}: {error}")
        time.sleep(0.01)


def logged_ids(dev: EnvironmentDescriptor) -> list[str]:
    lines = [line for content in objects(dev, f"inference/{MODEL}/2") for line in content.splitlines()]
    return [json.loads(line).get("id", "") for line in lines]


def lost_records(dev: EnvironmentDescriptor) -> int:
    return sum(json.loads(content)["lost"] for content in objects(dev, f"inference/{MODEL}/counts/"))


def objects(dev: EnvironmentDescriptor, prefix: str) -> Iterator[bytes]:
    s3 = boto3.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dev.logs_bucket, Prefix=prefix):
        for each in page.get("Contents", ()):
            yield s3.get_object(Bucket=dev.logs_bucket, Key=each["Key"])["Body"].read()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("replaced-pods")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        edit(project.model_file(MODEL), "gates", "latency", "p99_ms", value=1000.0)  # this machine may be busy
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch, time_scale=0.2)
        here, hub = bring_up_dev(project, home, running, patch)
        with hub.serving():
            trial = Trial(hub, here.descriptor("dev"), runs={})
            trial.release(batches(Project(project.root), folder / "batches")["first"])
        dev = here.descriptor("dev")
        bundle = served_bundle(dev.namespace, MODEL)  # what `git pull` would write
        edit(project.release_file(MODEL, "dev"), "bundle", value=bundle)
        yield Story(replace_each(dev), disturb(here, dev, Faults(home)))


def replace_each(dev: EnvironmentDescriptor) -> Replaced:
    """Delete the pods one by one while requests run, as a drained node does."""
    made = Replaced(before=ready_pods(dev))
    with callers(dev, "replaced-", made):
        for name in sorted(made.before):
            with connect(dev.namespace) as client:
                client.delete(Pod, name)
            await_true(lambda: len(ready_pods(dev)) == len(made.before), f"no pod takes the place of {name}")
            await_true(lambda name=name: not exists(dev, name), f"{name} does not end")  # type: ignore[misc]
    made.after = ready_pods(dev)
    await_true(lambda: set(made.answered) <= set(logged_ids(dev)), "requests are missing in the inference log")
    made.logged = logged_ids(dev)
    return made


def disturb(here: LaptopTarget, dev: EnvironmentDescriptor, faults: Faults) -> Disturbed:
    """Let S3 fail in each way while requests run, and let the monitor judge them."""
    made = Disturbed()
    with callers(dev, "disturbed-", made):
        for name, seconds in S3_FAULTS.items():
            faults.inject(name, seconds)
            await_true(lambda: not faults.active(), f"{name} does not end")

    def is_accounted_for() -> bool:
        sent = set(made.answered)
        made.logged, made.lost = [id_ for id_ in logged_ids(dev) if id_ in sent], lost_records(dev)
        return len(made.logged) + made.lost >= len(sent)

    await_true(is_accounted_for, "requests are neither logged nor lost")
    run_model_monitor_job(here, "dev", MODEL, print)
    made.report = read_model_report(dev, MODEL, find_report(dev, MODEL, "", "models"))
    return made


def exists(dev: EnvironmentDescriptor, name: str) -> bool:
    with connect(dev.namespace) as client:
        return name in {str(pod.metadata.name) for pod in client.list(Pod) if pod.metadata is not None}


def test_every_pod_was_replaced_and_no_request_failed(story: Story) -> None:
    replaced = story.replaced
    assert len(replaced.before) == 2
    assert not replaced.before & replaced.after
    assert len(replaced.after) == 2
    assert replaced.failed == []
    assert len(replaced.answered) > 100


def test_no_request_fails_while_s3_is_down_slow_or_throttled(story: Story) -> None:
    assert story.disturbed.failed == []
    assert len(story.disturbed.answered) > 100


def test_what_servers_could_not_write_is_counted_and_reported(story: Story) -> None:
    made = story.disturbed
    assert len(made.logged) == len(set(made.logged))
    assert made.lost > 0
    assert len(made.logged) + made.lost == len(made.answered)
    assert made.report is not None
    assert made.report.lost == made.lost
    assert [each.verdict for each in made.report.findings if each.subject == "lost records"] == ["alarm"]


def test_each_request_is_logged_once(story: Story) -> None:
    replaced = story.replaced
    sent = [id_ for id_ in replaced.logged if id_ in set(replaced.answered)]
    assert sorted(sent) == sorted(replaced.answered)
