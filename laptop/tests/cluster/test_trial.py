"""A release on trial: the endpoint as the program declares it, asked between its steps by the real check."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from laptop.cluster.kinds import (
    ANALYSIS_TEMPLATE,
    INGRESS,
    JOB,
    NAMESPACE,
    ROLLOUT,
    SERVICE,
    SERVICE_ACCOUNT,
)
from laptop.tests.cluster.small_cluster import IMAGE, SmallCluster, new_namespace
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles
from tests.aws import EmulatedAccount, emulated_account, make_environment
from tests.infra.recording import BUNDLE, ROOT, Recording
from tests.pipelines.serving.bundles import ROW, MadeBundle, linear_bundle

MODEL = "diabetes-progression"

# Answers as a model server does; the third argument is what it adds to the right prediction, the fourth its status.
SERVER = """
import asyncio, json, os, sys

MODEL, DIGEST, ERROR, STATUS = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])


async def serve(reader, writer):
    path, length = (await reader.readline()).split()[1].decode(), 0
    while (header := await reader.readline()) not in (b"\\r\\n", b""):
        name, _, value = header.decode().partition(":")
        length = int(value) if name.lower() == "content-length" else length
    body, status = await reader.readexactly(length), 200
    if path.endswith("/infer"):
        data, status = json.loads(body)["inputs"][0]["data"], STATUS
        said = [data[start] + data[start + 2] + ERROR for start in range(0, len(data), 10)]
        output = {"name": "variable", "datatype": "FP32", "shape": [len(said), 1], "data": said}
        said = {"model_version": DIGEST, "outputs": [output]}
    else:
        said = {"name": MODEL, "versions": [DIGEST]}
    content = json.dumps(said).encode()
    writer.write(b"HTTP/1.1 %d -\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, len(content)))
    writer.write(content)
    await writer.drain()
    writer.close()


async def main():
    await (await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"]))).serve_forever()


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def account() -> Iterator[EmulatedAccount]:
    with emulated_account() as running:
        yield running


@pytest.fixture(scope="module")
def descriptor(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment()


def released(descriptor: EnvironmentDescriptor, seed: int) -> str:
    """A bundle in the registry, and its digest."""
    made: MadeBundle = linear_bundle()
    manifest = made.manifest.model_copy(update={"model": MODEL, "seed": seed})
    return bundles.push(descriptor, manifest, made.files)


class Stage:
    """The endpoint of the program in a namespace of the small cluster, with a model server of this test's."""

    def __init__(self, cluster: SmallCluster, graph: Recording, environment: dict[str, str]) -> None:
        self.cluster = cluster
        self.namespace = new_namespace(cluster, f"trial-{uuid.uuid4().hex[:8]}")
        self._manifests = {
            resource.type.rpartition(":")[2]: json.loads(json.dumps(resource.plain), parse_float=_whole)
            for resource in graph.resources
            if resource.package == "kubernetes" and resource.name in (MODEL, f"check-{MODEL}")
        }
        for account in (f"serve-{MODEL}", f"check-{MODEL}"):
            cluster.create(SERVICE_ACCOUNT, self.namespace, {"metadata": {"name": account}})
        for service in graph.of_type("kubernetes:core/v1:Service").values():
            cluster.create(SERVICE, self.namespace, self._here(json.loads(json.dumps(service.plain))))
        cluster.create(INGRESS, self.namespace, self._here(self._manifests["Ingress"]))
        template = self._here(self._manifests["AnalysisTemplate"])
        pod = template["spec"]["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]
        self._run(pod, pod["containers"][0]["command"], environment)
        cluster.create(ANALYSIS_TEMPLATE, self.namespace, template)

    def _here(self, manifest: dict[str, Any]) -> dict[str, Any]:
        made = copy.deepcopy(manifest)
        made["metadata"]["namespace"] = self.namespace
        return made

    @staticmethod
    def _run(pod: dict[str, Any], command: list[str], environment: dict[str, str]) -> None:
        (container,) = pod["containers"]
        known = {variable["name"]: variable for variable in container["env"]}
        known |= {name: {"name": name, "value": value} for name, value in environment.items()}
        container |= {"image": IMAGE, "command": command, "env": list(known.values())}

    def release(self, bundle: str, *, error: float = 0.0, serves: str = "", status: int = 200) -> dict[str, Any]:
        """Lets the rollout serve a bundle, by a server that errs so much; its status once it is settled or given up."""
        manifest = json.loads(json.dumps(self._here(self._manifests["Rollout"])).replace(BUNDLE, bundle))
        pod, canary = manifest["spec"]["template"]["spec"], manifest["spec"]["strategy"]["canary"]
        self._run(pod, ["python", "-S", "server.py", MODEL, serves or bundle, str(error), str(status)], {})
        del pod["containers"][0]["lifecycle"]
        canary |= {"scaleDownDelaySeconds": 5, "steps": canary["steps"][:3]}
        manifest["spec"]["replicas"] = 1
        if self.cluster.client.get(ROLLOUT.path(self.namespace, MODEL)) is None:
            self.cluster.create(ROLLOUT, self.namespace, manifest)
        else:
            self.cluster.client.send("PUT", ROLLOUT.path(self.namespace, MODEL), manifest)

        def over(found: dict[str, Any]) -> bool:
            said = found.get("status") or {}
            seen = said.get("observedGeneration") == str(found["metadata"]["generation"])
            return seen and said.get("phase") in ("Healthy", "Degraded")

        seen: dict[str, Any] = self.cluster.wait(ROLLOUT, self.namespace, MODEL, over, seconds=60)["status"]
        return seen

    def served(self) -> set[str]:
        """The digests that answer the endpoint's clients."""
        import urllib.request

        url = f"{self.cluster.address(self.namespace, MODEL)}/v2/models/{MODEL}"
        return {json.load(urllib.request.urlopen(url, timeout=10))["versions"][0] for _ in range(10)}

    def said(self) -> list[str]:
        """What the checks of the last analysis printed, the last pod's last."""
        (*_, job) = self.cluster.find_all(JOB, self.namespace)
        pods = self.cluster.pods_of(self.namespace, job["metadata"]["name"])
        return [self.cluster.log(self.namespace, pod["metadata"]["name"]) for pod in pods]


def _whole(number: str) -> int | float:
    return int(float(number)) if float(number).is_integer() else float(number)


@pytest.fixture(scope="module")
def stage(
    cluster: SmallCluster, graphs: dict[str, Recording], account: EmulatedAccount, descriptor: EnvironmentDescriptor
) -> Iterator[Stage]:
    (cluster.root / "server.py").write_text(SERVER)
    environment = {**account.environ(), "PYTHONPATH": str(ROOT), "MLOPS_ENVIRONMENT": descriptor.model_dump_json()}
    made = Stage(cluster, graphs["dev"], environment)
    yield made
    cluster.delete(NAMESPACE, "", made.namespace)


@pytest.fixture(scope="module")
def trusted(stage: Stage, descriptor: EnvironmentDescriptor) -> str:
    """The bundle that is stable."""
    digest = released(descriptor, 1)
    assert stage.release(digest)["phase"] == "Healthy"
    return digest


def test_a_release_that_answers_rightly_goes_on_to_take_all_of_the_traffic(
    stage: Stage, trusted: str, descriptor: EnvironmentDescriptor
) -> None:
    digest = released(descriptor, 2)
    assert stage.release(digest)["phase"] == "Healthy"
    assert stage.served() == {digest}
    assert stage.said()[-1].startswith(f"passed: {MODEL}-canary serves {digest}")
    assert stage.release(trusted)["phase"] == "Healthy"


@pytest.mark.parametrize(
    ("wrong", "said", "why", "tries"),
    [
        ({"error": 1.0}, f"expected {ROW[0] + ROW[2]:g}", "exit code 1 matching FailJob", 1),
        ({"serves": "sha256:" + "f" * 64}, "says that it serves ['sha256:fff", "exit code 1 matching FailJob", 1),
        ({"status": 503}, "inconclusive", "backoff limit", 3),
    ],
    ids=["predicts wrong", "serves another bundle", "cannot be asked"],
)
def test_a_release_that_is_wrong_or_cannot_be_asked_gives_its_traffic_back(
    stage: Stage,
    trusted: str,
    descriptor: EnvironmentDescriptor,
    wrong: dict[str, Any],
    said: str,
    why: str,
    tries: int,
) -> None:
    status = stage.release(released(descriptor, 3), **wrong)
    assert status["phase"] == "Degraded"
    assert why in status["message"]
    assert stage.served() == {trusted}
    printed = stage.said()
    assert len(printed) == tries
    assert said in printed[-1]
    assert stage.release(trusted)["phase"] == "Healthy"
