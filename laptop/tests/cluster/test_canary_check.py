"""Canary check of a release: the endpoint as the Pulumi program declares it, and the product's own check."""

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
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, ending, new_namespace
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles
from tests.aws import EmulatedAccount, emulated_account, make_environment
from tests.infra.recording import BUNDLE, ROOT, Recording
from tests.pipelines.serving.bundles import ROW, MadeBundle, linear_bundle

pytestmark = pytest.mark.slow

MODEL = "diabetes-progression"

# Model server; the third argument is added to the correct prediction, the fourth is the status.
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
        predictions = [data[start] + data[start + 2] + ERROR for start in range(0, len(data), 10)]
        output = {"name": "variable", "datatype": "FP32", "shape": [len(predictions), 1], "data": predictions}
        answer = {"model_version": DIGEST, "outputs": [output]}
    else:
        answer = {"name": MODEL, "versions": [DIGEST]}
    content = json.dumps(answer).encode()
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
    """Return the digest of a bundle in the registry."""
    made: MadeBundle = linear_bundle()
    manifest = made.manifest.model_copy(update={"model": MODEL, "seed": seed})
    return bundles.push(descriptor, manifest, made.files)


class Stage:
    """Endpoint of the program in a namespace of the cluster, with this test's model server."""

    def __init__(self, cluster: RunningCluster, graph: Recording, environment: dict[str, str]) -> None:
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
        urls = {f"CHECK_{role.upper()}_URL": f"http://{MODEL}-{role}.{self.namespace}.svc" for role in ("ping", "pong")}
        self._run(pod, pod["containers"][0]["command"], {**environment, **urls})
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
        """Roll out a bundle with a server of a given error, and return the status once it is promoted or aborted."""
        manifest = json.loads(json.dumps(self._here(self._manifests["Rollout"])).replace(BUNDLE, bundle))
        pod, canary = manifest["spec"]["template"]["spec"], manifest["spec"]["strategy"]["canary"]
        self._run(pod, ["python", "-S", "server.py", MODEL, serves or bundle, str(error), str(status)], {})
        del pod["containers"][0]["lifecycle"]
        canary |= {"scaleDownDelaySeconds": 5, "steps": canary["steps"][:3]}
        manifest["spec"]["replicas"] = 1
        found = self.cluster.client.get(ROLLOUT.path(self.namespace, MODEL))
        if found is None:
            self.cluster.create(ROLLOUT, self.namespace, manifest)
        else:
            manifest["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            self.cluster.client.send("PUT", ROLLOUT.path(self.namespace, MODEL), manifest)

        def over(found: dict[str, Any]) -> bool:
            status = found.get("status") or {}
            seen = status.get("observedGeneration") == str(found["metadata"]["generation"])
            return seen and status.get("phase") in ("Healthy", "Degraded")

        seen: dict[str, Any] = self.cluster.wait(ROLLOUT, self.namespace, MODEL, over, seconds=60)["status"]
        return seen

    def served(self) -> set[str]:
        """Return the digests that answer the endpoint's clients."""
        import urllib.request

        url = f"{self.cluster.address(self.namespace, MODEL)}/v2/models/{MODEL}"
        return {json.load(urllib.request.urlopen(url, timeout=10))["versions"][0] for _ in range(10)}

    def last_job(self) -> dict[str, Any]:
        """Return the job of the last analysis."""
        jobs = self.cluster.find_all(JOB, self.namespace)
        return max(
            jobs, key=lambda job: (job["metadata"]["creationTimestamp"], int(job["metadata"]["resourceVersion"]))
        )

    def failure(self) -> str:
        """Return why the job of the last analysis failed."""
        return str((ending(self.last_job()) or {}).get("message"))

    def output(self) -> list[str]:
        """Return the output of the checks of the last analysis, the last pod's last."""
        pods = self.cluster.pods_of(self.namespace, self.last_job()["metadata"]["name"])
        return [self.cluster.log(self.namespace, pod["metadata"]["name"]) for pod in pods]


def _whole(number: str) -> int | float:
    return int(float(number)) if float(number).is_integer() else float(number)


@pytest.fixture(scope="module")
def stage(
    cluster: RunningCluster, graphs: dict[str, Recording], account: EmulatedAccount, descriptor: EnvironmentDescriptor
) -> Iterator[Stage]:
    (cluster.root / "server.py").write_text(SERVER)
    environment = {**account.environ(), "PYTHONPATH": str(ROOT), "MLOPS_ENVIRONMENT": descriptor.model_dump_json()}
    made = Stage(cluster, graphs["dev"], environment)
    yield made
    cluster.delete(NAMESPACE, "", made.namespace)


@pytest.fixture(scope="module")
def trusted(stage: Stage, descriptor: EnvironmentDescriptor) -> str:
    """Return the stable bundle."""
    digest = released(descriptor, 1)
    assert stage.release(digest)["phase"] == "Healthy"
    return digest


def test_a_release_with_correct_answers_takes_all_traffic(
    stage: Stage, trusted: str, descriptor: EnvironmentDescriptor
) -> None:
    digest = released(descriptor, 2)
    assert stage.release(digest)["phase"] == "Healthy"
    assert stage.served() == {digest}
    assert stage.output()[-1].startswith(f"passed: http://{MODEL}-pong.{stage.namespace}.svc serves {digest}")
    assert stage.release(trusted)["phase"] == "Healthy"


@pytest.mark.parametrize(
    ("wrong", "expected", "why", "tries"),
    [
        ({"error": 1.0}, f"expected {ROW[0] + ROW[2]:g}", "exit code 1 matching FailJob", 1),
        ({"serves": "sha256:" + "f" * 64}, "found sha256:fff", "exit code 1 matching FailJob", 1),
        ({"status": 503}, "inconclusive", "backoff limit", 3),
    ],
    ids=["predicts wrong", "serves another bundle", "cannot be asked"],
)
def test_a_wrong_or_unreachable_release_loses_its_traffic(
    stage: Stage,
    trusted: str,
    descriptor: EnvironmentDescriptor,
    wrong: dict[str, Any],
    expected: str,
    why: str,
    tries: int,
) -> None:
    status = stage.release(released(descriptor, 3), **wrong)
    assert status["phase"] == "Degraded"
    assert 'Metric "answers" assessed Failed' in status["message"]
    assert why in stage.failure()
    assert stage.served() == {trusted}
    printed = stage.output()
    assert len(printed) == tries
    assert expected in printed[-1]
    assert stage.release(trusted)["phase"] == "Healthy"
