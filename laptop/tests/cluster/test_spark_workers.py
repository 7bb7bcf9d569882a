"""The Spark server of the program with workers: Sail starts them as pods, with a role that allows little else.

The objects are those of the Pulumi program. Only the tables are local files instead of objects of an account.
"""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from laptop.cluster.kinds import (
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    POD,
    RESOURCE_QUOTA,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from laptop.cluster.ports import annotated_ports
from laptop.tests.cluster.running_cluster import RunningCluster, wait_for
from pipelines.data.spark_session import open_spark
from pipelines.declarations.errors import MlopsError
from tests.infra.recording import ROOT, Recording, edit, record, release_everywhere
from tests.pipelines.training.held_work import HeldWork
from tests.sample_project import copy_as_forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")

HOME = "models-dev-spark"
KINDS = (NAMESPACE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, RESOURCE_QUOTA, SERVICE, DEPLOYMENT)
LONGEST = 240.0  # seconds


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The program of dev with a contract that says `engine: spark`, and two workers of one core."""
    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("spark") / "project"))
    engine = [{"property": "engine", "value": "spark"}]
    edit(project / "data-contracts" / "diabetes-patients.odcs.yaml", "customProperties", value=engine)
    spark = {"workers": 2, "cpu": "1", "memory": "2Gi"}
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "spark", value=spark)
    return record(project, "dev")


def objects(program: Recording, kind: Kind) -> Iterator[dict[str, Any]]:
    """Yield the manifests of a kind that are about the namespace of the Spark server."""
    group = f"{kind.group or 'core'}/{kind.version}"
    for resource in program.of_type(f"kubernetes:{group}:{kind.name}").values():
        found = resource.plain
        place = found["metadata"]["name" if kind is NAMESPACE else "namespace"]
        if place == HOME:
            yield {**found, "apiVersion": kind.api_version, "kind": kind.name}


@pytest.fixture(scope="module")
def server(cluster: RunningCluster, program: Recording) -> Iterator[RunningCluster]:
    """The objects of the program in the cluster, whose server's address is in SPARK_REMOTE."""
    for kind in KINDS:
        for manifest in objects(program, kind):
            cluster.create(kind, "" if kind is NAMESPACE else HOME, manifest)
            if kind is DEPLOYMENT:
                cluster.images.known.add(manifest["spec"]["template"]["spec"]["containers"][0]["image"])
    files, cluster.images.files = cluster.images.files, ROOT
    try:
        pod = wait_for(lambda: ready_server(cluster), LONGEST)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{annotated_ports(pod)[50051]}")
            yield cluster
    finally:
        cluster.delete(NAMESPACE, "", HOME)
        wait_for(lambda: cluster.client.get(NAMESPACE.path("", HOME)) is None, LONGEST)
        cluster.images.files = files


def ready_server(cluster: RunningCluster) -> dict[str, Any] | None:
    pods = cluster.find_all(POD, HOME, "?labelSelector=app.kubernetes.io%2Fname%3Dspark")
    return next((pod for pod in pods if annotated_ports(pod)), None)


def workers(cluster: RunningCluster) -> list[dict[str, Any]]:
    found = cluster.find_all(POD, HOME, "?labelSelector=app.kubernetes.io%2Fcomponent%3Dworker")
    return [pod for pod in found if (pod.get("status") or {}).get("phase") == "Running"]


@pytest.mark.parametrize("kill", [False, True], ids=["as-they-are", "one-is-killed"])
def test_the_training_set_is_that_of_one_process(server: RunningCluster, kill: bool, tmp_path: Path) -> None:
    held = HeldWork(tmp_path)
    killed: list[int] = []
    ended = threading.Event()

    def work() -> None:
        wait_for(lambda: len(list(held.signals.iterdir())) >= 2 or ended.is_set(), LONGEST)
        if kill and not ended.is_set():
            process = next(each for each in map(psutil.Process, pids(held.signals)) if each.is_running())
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
        (held.signals / "go").touch()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        if kill:
            with pytest.raises(MlopsError, match="stopped the work"):
                held.sort(4)
        there = held.sort(4)  # as the Job does, which Kubernetes starts again
    finally:
        ended.set()
        worker.join()
    assert bool(killed) is kill
    assert len(set(pids(held.signals))) >= 2, "both workers did a part"
    held.check(there)


def test_the_server_may_start_workers_and_nothing_else(server: RunningCluster) -> None:
    token = next(iter((server.home / "cluster").glob(f"pods-*/{HOME}_spark-*/serviceaccount/token"))).read_text()

    def asked(method: str, path: str) -> int:
        body: dict[str, Any] | None = {} if method == "POST" else None
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(verify=ssl.create_default_context(cafile=str(server.authority)), trust_env=False) as client:
            return client.request(method, f"{server.endpoint}{path}", headers=headers, json=body).status_code

    here, elsewhere = POD.path(HOME), POD.path("default")
    assert asked("GET", f"{here}/none") == 404
    forbidden = [("GET", here), ("DELETE", f"{here}/none"), ("GET", SERVICE_ACCOUNT.path(HOME)), ("POST", elsewhere)]
    forbidden += [("POST", JOB.path(HOME)), ("GET", f"{elsewhere}/none"), ("GET", f"/api/v1/namespaces/{HOME}/secrets")]
    assert {asked(*each) for each in forbidden} == {403}


def test_workers_have_no_token_and_end_with_the_server(server: RunningCluster) -> None:
    with open_spark() as spark:
        assert spark.range(10).count() == 10
        (first, *_) = found = workers(server)
        folder = next((server.home / "cluster").glob(f"pods-*/{HOME}_{first['metadata']['name']}_*"))
        assert not (folder / "serviceaccount").exists()
        assert first["spec"]["serviceAccountName"] == "spark-worker"
        owners = {pod["metadata"]["ownerReferences"][0]["name"].partition("-")[0] for pod in found}
        assert owners == {"spark"}


def pids(folder: Path) -> list[int]:
    return [int(file.name.partition("-")[2]) for file in folder.glob("working-*")]
