"""Images: both Dockerfiles, built and run by a container engine: ingest, train, serve."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping

import httpx
import pytest

from laptop.cluster.ports import PortPool
from laptop.conformance.container_engine import Engine, NoContainerEngine, find_container_engine
from laptop.conformance.run_record import FOUND_PROPERTY, ROOT
from pipelines.data.landing import upload
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.serving.probe import golden_of
from tests.aws import EmulatedAccount, emulated_account, make_table
from tests.signing_environments import COMMIT, make_signing_environment

MODEL, DATASET = "diabetes-progression", "diabetes-patients"
IMAGE = "sha256:" + "a" * 64
READY_WITHIN = 60.0  # seconds

FACTS = """
import os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(os.getuid(), os.getgid(), status["CapEff"], status["CapBnd"], status["NoNewPrivs"])
open("/tmp/scratch", "w").close()
try:
    open("/app/written", "w")
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("images")
    try:
        found = find_container_engine(folder)
    except NoContainerEngine as error:
        pytest.skip(f"no container engine: {error.what}")
    yield found
    found.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _report_engine(request: pytest.FixtureRequest, images: Mapping[str, str], engine: Engine) -> None:
    base = "" if engine.base == "as pinned" else f" ({engine.base})"
    request.node.user_properties.append((FOUND_PROPERTY, [engine.name, f"{engine.version()}{base}"]))


@pytest.fixture(scope="module")
def images(engine: Engine) -> Mapping[str, str]:
    """Both images, built: name → tag."""
    for name in ("serving", "training"):
        engine.build(ROOT / "pipelines" / name / "Dockerfile", ROOT, f"conformance-{name}")
    return {name: f"conformance-{name}" for name in ("serving", "training")}


@pytest.fixture(scope="module")
def account() -> Iterator[EmulatedAccount]:
    with emulated_account() as running:
        yield running


@pytest.fixture(scope="module")
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    """An environment with the sample's landing file and an empty table."""
    project = Project(ROOT)
    contract = project.contract(DATASET)
    descriptor = make_signing_environment("dev")
    make_table(descriptor, contract)
    upload(descriptor, DATASET, project.contracts_folder / "samples" / f"{DATASET}.csv")
    return descriptor


def variables(account: EmulatedAccount, descriptor: EnvironmentDescriptor) -> dict[str, str]:
    return {**account.environ(), VARIABLE: descriptor.model_dump_json(), "HOME": "/tmp"}


@pytest.mark.parametrize("name", ["serving", "training"])
def test_a_container_has_no_more_than_a_pod(engine: Engine, images: Mapping[str, str], name: str) -> None:
    with engine.start(images[name], ["python", "-c", FACTS], {}) as container:
        said, _ = container.communicate(timeout=60)
    assert said.splitlines() == ["10001 10001 0000000000000000 0000000000000000 1", "Read-only file system"]


@pytest.fixture(scope="module")
def bundle(engine: Engine, images: Mapping[str, str], account: EmulatedAccount, dev: EnvironmentDescriptor) -> str:
    """The digest of the bundle that the training image made from data that it ingested."""
    environ = variables(account, dev)
    with engine.start(images["training"], ["python", "-m", "pipelines.data", "ingest", DATASET], environ) as job:
        said, _ = job.communicate(timeout=180)
    assert job.returncode == 0, said
    environ |= {"RUN_ID": "conformance", "SOURCE_COMMIT": COMMIT, "IMAGE_DIGEST": IMAGE}
    with engine.start(images["training"], ["python", "-m", "pipelines.training", MODEL], environ) as job:
        said, _ = job.communicate(timeout=180)
    assert job.returncode == 0, said
    return said.splitlines()[-1]


def test_the_training_image_ingests_and_trains(bundle: str) -> None:
    assert bundle.startswith("sha256:")


def test_the_serving_image_becomes_ready_and_answers_as_trained(
    engine: Engine, images: Mapping[str, str], account: EmulatedAccount, dev: EnvironmentDescriptor, bundle: str
) -> None:
    declared = {"ports": [{"containerPort": 8080}]}
    port = PortPool().allocate(declared)[8080]
    environ = {**variables(account, dev), "HOST": "127.0.0.1", "PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = ["python", "-m", "pipelines.serving", "--model", MODEL, "--bundle", bundle]
    with (
        engine.start(images["serving"], command, environ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client,
    ):
        deadline = time.monotonic() + READY_WITHIN
        while not is_ready(client):
            assert server.poll() is None, server.communicate()[0]
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.1)
        golden = golden_of(dev, MODEL, bundle)
        body = {"inputs": [tensor.model_dump(mode="json", exclude_none=True) for tensor in golden.inputs]}
        answer = client.post(f"/v2/models/{MODEL}/infer", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        expected = pytest.approx(list(golden.outputs[0].data), rel=golden.relative_tolerance)
        assert answer.json()["outputs"][0]["data"] == expected
        server.terminate()
        assert server.wait(30) == 0, "it ends by itself after SIGTERM"


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
