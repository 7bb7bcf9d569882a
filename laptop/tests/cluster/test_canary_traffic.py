"""Canaries that answer their golden requests, and fail or are slow under traffic.

The endpoint is the program's, the server and the check are the product's, and callers send requests by the weights of
the load balancer.
"""

from __future__ import annotations

import json
import random
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from onnx import TensorProto, helper

from laptop.cluster.kinds import ANALYSIS_TEMPLATE, NAMESPACE, ROLLOUT
from laptop.tests.cluster.running_cluster import RunningCluster
from laptop.tests.cluster.test_canary_check import MODEL, Stage
from pipelines.cluster.rollouts import check_canary_again
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles
from tests.aws import EmulatedAccount, make_environment
from tests.infra.recording import Recording
from tests.pipelines.serving.bundles import ROW, MadeBundle, graph, linear_bundle, with_file
from tests.sample_project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TRIGGER = 123.0
"""Value of the last feature for which a planted bundle misbehaves. Golden requests do not have it."""

SERVER = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace

from pipelines.declarations.bundle import Bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.server import run
from pipelines.serving.server_settings import ServerSettings

folder, delay = Path(sys.argv[1]), float(sys.argv[2])
manifest = Bundle.model_validate_json((folder / "bundle.json").read_bytes())
made = SimpleNamespace(manifest=manifest, files={p.name: p.read_bytes() for p in folder.iterdir()})
answer = Predictor.answer


def late(self, body, default_id):
    if delay and b"123.0" in body:
        time.sleep(delay)
    return answer(self, body, default_id)


Predictor.answer = late
settings = ServerSettings.from_environ(manifest.model, manifest.digest, os.environ)
sys.exit(run(settings, lambda: made, lambda key, content: None))
"""


def erring_bundle() -> MadeBundle:
    """Return the linear bundle with an output that is not a number for `TRIGGER`."""

    def constant(name: str, kind: int, values: list[Any]) -> Any:
        return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, [len(values)], values))

    nodes = [
        constant("first", TensorProto.INT64, [9]),
        constant("last", TensorProto.INT64, [10]),
        constant("axis", TensorProto.INT64, [1]),
        constant("trigger", TensorProto.FLOAT, [TRIGGER]),
        constant("nothing", TensorProto.FLOAT, [0.0]),
        helper.make_node("LinearRegressor", ["features"], ["sum"], domain="ai.onnx.ml",
                         coefficients=[1.0, 0.0, 1.0, *[0.0] * 7], intercepts=[0.0]),
        helper.make_node("Slice", ["features", "first", "last", "axis"], ["s6"]),
        helper.make_node("Sub", ["s6", "trigger"], ["distance"]),
        helper.make_node("Div", ["nothing", "distance"], ["zero"]),  # 0 / 0 is not a number
        helper.make_node("Add", ["sum", "zero"], ["variable"]),
    ]  # fmt: skip
    model = graph(nodes, {"features": (TensorProto.FLOAT, 10)}, {"variable": (TensorProto.FLOAT, 1)})
    return with_file(linear_bundle(), "model.onnx", model)


class Callers:
    """Threads that send requests to an endpoint until they are stopped; a third of the rows have `TRIGGER`."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self._url = f"{url}/v2/models/{MODEL}/infer"
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(seed,), daemon=True) for seed in range(threads)]
        self._answers: list[tuple[int, str]] = []

    @property
    def answers(self) -> Counter[tuple[int, str]]:
        """Status and bundle of the answers → their number. The status is 0 if there was no answer."""
        return Counter(self._answers)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._ended.is_set():
            row = [*ROW[:2], chance.uniform(20, 40), *ROW[3:9], TRIGGER if chance.random() < 0.33 else 87.0]
            tensor = {"name": "features", "shape": [1, 10], "datatype": "FP32", "data": row}
            body = json.dumps({"inputs": [tensor]}).encode()
            request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
            try:
                answer = json.load(urllib.request.urlopen(request, timeout=10))
                self._answers.append((200, answer["model_version"]))
            except OSError as error:
                self._answers.append((error.code if isinstance(error, urllib.error.HTTPError) else 0, ""))
                self._ended.wait(0.01)


class TrafficStage(Stage):
    """Endpoint whose pods run the product's server."""

    def __init__(self, descriptor: EnvironmentDescriptor, cluster: RunningCluster, *arguments: Any) -> None:
        self._descriptor = descriptor
        (cluster.root / "product_server.py").write_text(SERVER)
        super().__init__(cluster, *arguments)

    def push(self, made: MadeBundle, seed: int) -> str:
        """Register a bundle, and write it into the image of the servers."""
        manifest = made.manifest.model_copy(update={"model": MODEL, "seed": seed})
        digest = bundles.push(self._descriptor, manifest, made.files)
        folder = self.cluster.root / digest.removeprefix("sha256:")
        folder.mkdir(exist_ok=True)  # another module may have pushed the same bundle
        for name, content in {**made.files, "bundle.json": manifest.model_dump_json().encode()}.items():
            (folder / name).write_bytes(content)
        return digest

    def serve(self, digest: str, *, delay: float = 0.0, seconds: int = 1) -> dict[str, Any]:
        """Roll a bundle out at half of the traffic; return the status once it is decided."""
        command = ["python", "product_server.py", digest.removeprefix("sha256:"), str(delay), "--bundle", digest]
        return self.roll_out(digest, command, weight=50, seconds=seconds)

    @contextmanager
    def settings(self, **changes: Any) -> Iterator[None]:
        """Change the settings of the check for a while."""
        path = ANALYSIS_TEMPLATE.path(self.namespace, f"check-{MODEL}")
        before = self.cluster.client.get(path)
        assert before is not None
        template = json.loads(json.dumps(before))
        for metric in template["spec"]["metrics"]:
            for variable in metric["provider"]["job"]["spec"]["template"]["spec"]["containers"][0]["env"]:
                if variable["name"] == "CHECK_SETTINGS":
                    variable["value"] = json.dumps(json.loads(variable["value"]) | changes)
        self.cluster.client.send("PUT", path, template)
        yield
        now = self.cluster.client.get(path)
        assert now is not None
        now["spec"] = before["spec"]
        self.cluster.client.send("PUT", path, now)


S = TypeVar("S", bound=TrafficStage)


@contextmanager
def opened_stage(kind: type[S], cluster: RunningCluster, graph: Recording, account: EmulatedAccount) -> Iterator[S]:
    """Make a stage whose pods use an account, and remove it in the end."""
    descriptor = make_environment()
    variables = {
        **account.environ(),
        "PYTHONPATH": str(ROOT),
        "MLOPS_ENVIRONMENT": descriptor.model_dump_json(),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.home / "kubeconfig"))
        made = kind(descriptor, cluster, graph, variables)
        yield made
    cluster.delete(NAMESPACE, "", made.namespace)


@pytest.fixture(scope="module")
def stage(cluster: RunningCluster, graphs: dict[str, Recording], account: EmulatedAccount) -> Iterator[TrafficStage]:
    with opened_stage(TrafficStage, cluster, graphs["dev"], account) as made:
        yield made


@pytest.fixture(scope="module")
def live(stage: TrafficStage) -> str:
    digest = stage.push(linear_bundle(), 1)
    assert stage.serve(digest)["phase"] == "Healthy"
    return digest


def test_a_canary_that_errs_under_traffic_is_aborted_although_its_golden_requests_match(
    stage: TrafficStage, live: str
) -> None:
    bad = stage.push(erring_bundle(), 2)
    with Callers(stage.cluster.address(stage.namespace, MODEL)):
        status = stage.serve(bad, seconds=300)
    assert status["phase"] == "Degraded"
    (printed,) = stage.output("harm")
    assert "golden rows match" in printed
    assert f"failed: http://{MODEL}-pong.{stage.namespace}.svc is worse than the live pods after " in printed
    # A third of its answers are errors; of the first twenty, more or fewer may be.
    assert re.search(r"errors: canary [1-9][0-9.]* %, live 0 %", printed.splitlines()[-1])
    assert stage.served() == {live}


def test_a_canary_that_is_slow_under_traffic_is_aborted(stage: TrafficStage, live: str) -> None:
    slow = stage.push(linear_bundle(), 3)
    with Callers(stage.cluster.address(stage.namespace, MODEL)):
        status = stage.serve(slow, delay=0.08, seconds=300)
    assert status["phase"] == "Degraded"
    assert "latency: canary " in stage.output("harm")[0].splitlines()[-1]
    assert stage.served() == {live}


def test_a_canary_without_traffic_pauses_and_passes_once_there_is_enough(stage: TrafficStage, live: str) -> None:
    good = stage.push(linear_bundle(), 4)
    with stage.settings(golden_only=False, wait_seconds=2):
        status = stage.serve(good)
        assert status["phase"] == "Paused"
        assert [pause["reason"] for pause in status["pauseConditions"]] == ["InconclusiveAnalysisRun"]
        assert "both need some" in stage.output("verdict")[0]

    url = stage.cluster.address(stage.namespace, MODEL)
    with stage.settings(golden_only=False, wait_seconds=120), Callers(url):
        assert check_canary_again(stage.namespace, MODEL, good) is True
        stage.cluster.wait(
            ROLLOUT, stage.namespace, MODEL, lambda found: found["status"].get("phase") == "Healthy", seconds=150
        )
    assert stage.served() == {good}
    assert "is not worse than the live pods after " in stage.output("verdict")[0]
