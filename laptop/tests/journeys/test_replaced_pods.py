"""Every process of an endpoint is replaced while requests run: none fails, and the inference log has all of them."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

import boto3
import pytest
from lightkube.resources.core_v1 import Pod

from laptop.demo.material import MODEL, batches
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import one_environment
from laptop.tests.journeys.test_model_monitor import await_true
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cluster.connection import connect
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.names import serving_name
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROW = [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0]
CALLERS = 4


@dataclass
class Replaced:
    """Results of the requests that were sent while pods were replaced.

    Attributes:
        before, after: names of the pods.
        answered: ids of the answered requests.
        failed: one message for each failed request.
        logged: ids in the inference log.
    """

    before: set[str] = field(default_factory=set)
    after: set[str] = field(default_factory=set)
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)


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


def call(dev: EnvironmentDescriptor, caller: int, made: Replaced, ended: threading.Event) -> None:
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
    s3, found = boto3.client("s3"), []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dev.logs_bucket, Prefix=f"inference/{MODEL}/2"):
        for each in page.get("Contents", ()):
            lines = s3.get_object(Bucket=dev.logs_bucket, Key=each["Key"])["Body"].read().splitlines()
            found += [json.loads(line).get("id", "") for line in lines]
    return found


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replaced]:
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
        yield replace_each(here.descriptor("dev"))


def replace_each(dev: EnvironmentDescriptor) -> Replaced:
    """Delete the pods one by one while requests run, as a drained node does."""
    made, ended = Replaced(before=ready_pods(dev)), threading.Event()
    callers = [threading.Thread(target=call, args=(dev, number, made, ended)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        for name in sorted(made.before):
            with connect(dev.namespace) as client:
                client.delete(Pod, name)
            await_true(lambda: len(ready_pods(dev)) == len(made.before), f"no pod takes the place of {name}")
            await_true(lambda name=name: not exists(dev, name), f"{name} does not end")  # type: ignore[misc]
    finally:
        ended.set()
        for caller in callers:
            caller.join(60)
    made.after = ready_pods(dev)
    await_true(lambda: set(made.answered) <= set(logged_ids(dev)), "requests are missing in the inference log")
    made.logged = logged_ids(dev)
    return made


def exists(dev: EnvironmentDescriptor, name: str) -> bool:
    with connect(dev.namespace) as client:
        return name in {str(pod.metadata.name) for pod in client.list(Pod) if pod.metadata is not None}


def test_every_pod_was_replaced_and_no_request_failed(replaced: Replaced) -> None:
    assert len(replaced.before) == 2
    assert not replaced.before & replaced.after
    assert len(replaced.after) == 2
    assert replaced.failed == []
    assert len(replaced.answered) > 100


def test_each_request_is_logged_once(replaced: Replaced) -> None:
    sent = [id_ for id_ in replaced.logged if id_ in set(replaced.answered)]
    assert sorted(sent) == sorted(replaced.answered)
