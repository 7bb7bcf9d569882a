"""Canary check of a release: the endpoint as the Pulumi program declares it, and the product's own check."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from typing import Any, Literal

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
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, new_namespace
from pipelines.cluster.canary_logs import reason_of_check
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
        urls = {f"CHECK_{role.upper()}_URL": f"http://{MODEL}-{role}.{self.namespace}.svc" for role in ("ping", "pong")}
        for metric in template["spec"]["metrics"]:
            pod = metric["provider"]["job"]["spec"]["template"]["spec"]
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
        """Roll out a bundle with a server of a given error, and return the status once it is decided."""
        return self.roll_out(bundle, ["python", "-S", "server.py", MODEL, serves or bundle, str(error), str(status)])

    def roll_out(self, bundle: str, command: list[str], weight: int = 10, seconds: int = 1) -> dict[str, Any]:
        """Roll out a bundle in one step, and return the status once it is promoted, aborted or paused.

        Args:
            bundle: digest of the bundle.
            command: command of its server.
            weight: of the step, in percent.
            seconds: duration of the step.
        """
        manifest = json.loads(json.dumps(self._here(self._manifests["Rollout"])).replace(BUNDLE, bundle))
        pod, canary = manifest["spec"]["template"]["spec"], manifest["spec"]["strategy"]["canary"]
        self._run(pod, command, {"PYTHONPATH": str(ROOT), **self.server_variables()})
        del pod["containers"][0]["lifecycle"]
        canary |= {"scaleDownDelaySeconds": 5, "steps": self.first_steps(canary["steps"], weight, seconds)}
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
            return seen and status.get("phase") in ("Healthy", "Degraded", "Paused")

        seen: dict[str, Any] = self.cluster.wait(ROLLOUT, self.namespace, MODEL, over, seconds=120)["status"]
        return seen

    def server_variables(self) -> dict[str, str]:
        """Return variables of the servers that differ from those of the program."""
        return {}

    @staticmethod
    def first_steps(steps: list[dict[str, Any]], weight: int, seconds: int) -> list[dict[str, Any]]:
        """Return the steps of the program up to the first analysis, with another weight and duration."""
        first = steps[:2]
        first[0]["setWeight"] = weight
        set_seconds(first[1], seconds)
        return first

    def served(self) -> set[str]:
        """Return the digests that answer the endpoint's clients."""
        import urllib.request

        url = f"{self.cluster.address(self.namespace, MODEL)}/v2/models/{MODEL}"
        return {json.load(urllib.request.urlopen(url, timeout=10))["versions"][0] for _ in range(10)}

    def reason(self, bundle: str, outcome: Literal["failed", "inconclusive"]) -> str:
        """Return what a deployment says about the check of a bundle."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(self.cluster.home / "kubeconfig"))
            return reason_of_check(self.namespace, MODEL, bundle, outcome)

    def output(self, metric: str) -> list[str]:
        """Return the output of each try of a check of the last analysis."""
        jobs = [job for job in self.cluster.find_all(JOB, self.namespace) if f".{metric}." in job["metadata"]["name"]]
        last = max(
            jobs, key=lambda job: (job["metadata"]["creationTimestamp"], int(job["metadata"]["resourceVersion"]))
        )
        pods = self.cluster.pods_of(self.namespace, last["metadata"]["name"])
        return [self.cluster.log(self.namespace, pod["metadata"]["name"]) for pod in pods]


def set_seconds(step: dict[str, Any], seconds: int) -> None:
    """Change how long an analysis step lasts."""
    (duration,) = [argument for argument in step["analysis"]["args"] if argument["name"] == "seconds"]
    duration["value"] = str(seconds)


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
    (harm,), (verdict,) = stage.output("harm"), stage.output("verdict")
    assert harm.splitlines()[-1].startswith("inconclusive: no verdict yet: 0 requests to the canary and 0 to the live")
    assert verdict.startswith(f"passed: http://{MODEL}-pong.{stage.namespace}.svc serves {digest}")
    assert stage.release(trusted)["phase"] == "Healthy"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"error": 1.0}, f"expected {ROW[0] + ROW[2]:g}"),
        ({"serves": "sha256:" + "f" * 64}, "found sha256:fff"),
    ],
    ids=["predicts wrong", "serves another bundle"],
)
def test_a_wrong_release_loses_its_traffic_at_the_first_check(
    stage: Stage, trusted: str, descriptor: EnvironmentDescriptor, wrong: dict[str, Any], expected: str
) -> None:
    digest = released(descriptor, 3)
    status = stage.release(digest, **wrong)
    assert status["phase"] == "Degraded"
    assert 'Metric "harm" assessed Failed' in status["message"]
    assert stage.served() == {trusted}
    (printed,) = stage.output("harm")
    assert printed.startswith("failed: ")
    assert expected in printed
    assert expected in stage.reason(digest, "failed")
    assert stage.release(trusted)["phase"] == "Healthy"


def test_a_release_that_cannot_be_asked_is_neither_aborted_nor_promoted(
    stage: Stage, trusted: str, descriptor: EnvironmentDescriptor
) -> None:
    digest = released(descriptor, 4)
    status = stage.release(digest, status=503)
    assert status["phase"] == "Paused"
    assert [pause["reason"] for pause in status["pauseConditions"]] == ["InconclusiveAnalysisRun"]
    assert status["canary"]["weights"]["canary"]["weight"] == 10
    (printed,) = stage.output("verdict")
    assert printed.startswith("inconclusive: ")
    assert "answered 503" in printed
    assert "answered 503" in stage.reason(digest, "inconclusive")
    assert stage.reason(digest, "failed") == ""
    assert stage.release(trusted)["phase"] == "Healthy"
