"""Benchmark of the inference server against a constant answer by uvicorn, and against MLServer.

Every server runs on one core, and the load generator on another. The three take turns, and medians are compared. Our
server has everything on: signed bundle, checks of every value, metrics, trace context, and the inference log to
(emulated) S3. Run it alone with `python -m tools.bench.serving`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tools.bench.figures import Figure
from tools.bench.load import Load, put_load, resident

ROOT = Path(__file__).parents[2]
MODEL = "diabetes-progression"
PEER = ROOT / ".venv" / "bench" / "bin" / "mlserver"

ROUNDS = 7
SECONDS = 1.0
CONNECTIONS = (1, 32)

SERVER = ("-m", "pipelines.serving")
LOWEST_SHARE = 0.7
LOWEST_RATIO = {1: 8.0, 32: 12.0}
"""Connections → how many times MLServer's rate."""

MOST_MEMORY = 150_000_000


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: URL of the inference endpoint.
        process: process id.
    """

    url: str
    process: int


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Figure]:
    """Measure throughput with one connection and with many, and memory.

    Raises:
        MlopsError: MLServer is not installed in `.venv/bench`.
    """
    if not PEER.exists():
        raise MlopsError(f"{PEER} is missing", fix="make bench, which installs requirements/bench.txt there")
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, {cores[-1]})
        with contextlib.ExitStack() as stack:
            return _measure(stack, cores[0], rounds, seconds)
    finally:
        os.sched_setaffinity(0, cores)


def _measure(stack: contextlib.ExitStack, core: int, rounds: int, seconds: float) -> list[Figure]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    manifest, files = train()
    body = golden_row(files["golden.json"])
    servers = {
        "ours": stack.enter_context(our_server(manifest, files, core, folder)),
        "constant": stack.enter_context(constant_server(core, folder)),
        "MLServer": stack.enter_context(mlserver(files["model.onnx"], core, folder)),
    }
    check_same_answer(servers["ours"].url, servers["MLServer"].url, body)
    loads: dict[tuple[str, int], list[Load]] = {(name, count): [] for count in CONNECTIONS for name in servers}
    for server in servers.values():
        put_load(server.url, body, connections=CONNECTIONS[-1], seconds=seconds, process=server.process)
    for _ in range(rounds):
        for name, count in loads:
            server = servers[name]
            load = put_load(server.url, body, connections=count, seconds=seconds, process=server.process)
            loads[name, count].append(load)
    check_log(servers["ours"])
    return [
        figure for count in CONNECTIONS for figure in throughput(count, {name: loads[name, count] for name in servers})
    ] + [memory(servers["ours"], servers["MLServer"])]


def throughput(connections: int, loads: dict[str, list[Load]]) -> list[Figure]:
    """Compare our server with both others round by round, so that other load on the machine affects all three."""
    named = "1 connection" if connections == 1 else f"{connections} connections"
    rates = {name: statistics.median(load.rate for load in measured) for name, measured in loads.items()}
    p99 = statistics.median(load.p99 for load in loads["ours"])
    busy = statistics.median(load.busy for load in loads["ours"])
    value = f"{rates['ours']:,.0f} req/s (p99 {p99 * 1000:.2f} ms, the core {busy:.0%} busy)"

    def ratio(name: str) -> float:
        return statistics.median(ours.rate / other.rate for ours, other in zip(loads["ours"], loads[name], strict=True))

    constant, peer = ratio("constant"), ratio("MLServer")
    return [
        Figure(
            f"inference of 1 row, {named}, one core, everything on",
            value,
            f"an ASGI application on uvicorn that answers a constant: {rates['constant']:,.0f} req/s",
            f"{constant:.2f}",
            f"≥ {LOWEST_SHARE}",
            constant >= LOWEST_SHARE,
        ),
        Figure(
            f"the same, {named}",
            value,
            f"MLServer with the same ONNX file: {rates['MLServer']:,.0f} req/s",
            f"{peer:.1f}",
            f"≥ {LOWEST_RATIO[connections]:g}",
            peer >= LOWEST_RATIO[connections],
        ),
    ]


def memory(ours: Server, peer: Server) -> Figure:
    """Compare resident memory after the load."""
    found = resident(ours.process)
    return Figure(
        "memory of the server after the load (resident)",
        f"{found / 1e6:.0f} MB",
        f"MLServer: {resident(peer.process) / 1e6:.0f} MB",
        f"{found / 1e6:.0f} MB",
        f"< {MOST_MEMORY / 1e6:.0f} MB",
        found < MOST_MEMORY,
    )


def train() -> tuple[Bundle, dict[str, bytes]]:
    """Train the sample model on the patients of the original study."""
    import pyarrow as pa
    from sklearn.datasets import load_diabetes

    from pipelines.training.training_run import make_bundle
    from pipelines.training.training_set import in_memory

    project = Project.find()
    model = project.model(MODEL)
    study = load_diabetes(scaled=False)
    columns: dict[str, Any] = {"patient_id": range(1, len(study.target) + 1)}
    columns |= {name: study.data[:, index] for index, name in enumerate(study.feature_names)}
    columns |= {"age": columns["age"].astype(int), "sex": columns["sex"].astype(int), "progression": study.target}
    version = DatasetVersion(
        dataset=model.contract, table="bench.patients", snapshot="1", content=digest_of_bytes(b""), rows=442
    )
    contract = project.contract(model.contract)
    rows = pa.table(columns)
    return make_bundle(
        project,
        model,
        contract,
        in_memory(rows, model, contract),
        version,
        digest_of_bytes(b"bench"),
        lambda line: None,
    )


def golden_row(golden: bytes) -> bytes:
    """Make a request of the first golden row."""
    (tensor,) = json.loads(golden)["inputs"]
    width = tensor["shape"][1]
    row = tensor | {"shape": [1, width], "data": [float(value) for value in tensor["data"][:width]]}
    return json.dumps({"id": "42", "inputs": [row]}).encode()


@contextlib.contextmanager
def our_server(
    manifest: Bundle, files: dict[str, bytes], core: int, folder: Path, program: Sequence[str] = SERVER, **environ: str
) -> Iterator[Server]:
    """Start our server with an emulated AWS account in another process.

    Args:
        manifest, files: the bundle.
        core: the core that it runs on.
        folder: receives logs.
        program: arguments of Python that start the server.
        environ: further environment variables.
    """
    from pipelines.registry import bundles, evidence
    from tests.signing_environments import GATES, example_build, make_signing_environment

    with account(folder) as credentials:
        saved = dict(os.environ)
        os.environ.update(credentials)
        try:
            descriptor = make_signing_environment()
            bundles.push(descriptor, manifest, files)
            evidence.attest(descriptor, manifest, GATES, example_build(descriptor.name))
        finally:
            os.environ.clear()
            os.environ.update(saved)
        arguments = [*program, "--model", manifest.model, "--bundle", manifest.digest]
        described = {"MLOPS_ENVIRONMENT": descriptor.model_dump_json(by_alias=True), "DRAIN_SECONDS": "0"}
        with serving([sys.executable, *arguments], core, folder, {**credentials, **described, **environ}) as server:
            yield server


@contextlib.contextmanager
def constant_server(core: int, folder: Path) -> Iterator[Server]:
    """Start an ASGI application on uvicorn with a constant answer."""
    with serving([sys.executable, "-m", "tools.bench.constant"], core, folder, {}) as server:
        yield server


@contextlib.contextmanager
def mlserver(onnx: bytes, core: int, folder: Path) -> Iterator[Server]:
    """Start MLServer configured for speed: no worker processes, access log, metrics or compression."""
    home = folder / "mlserver"
    home.mkdir()
    (home / "model.onnx").write_bytes(onnx)
    (home / "onnx_runtime.py").write_bytes((Path(__file__).parent / "peer" / "onnx_runtime.py").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as web, socket.create_server(("127.0.0.1", 0)) as grpc:
        ports = {"http_port": web.getsockname()[1], "grpc_port": grpc.getsockname()[1]}
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "gzip_enabled": False,
        "metrics_endpoint": None,
        **ports,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    model = {"name": MODEL, "implementation": "onnx_runtime.OnnxModel", "parameters": {"uri": "./model.onnx"}}
    (home / "model-settings.json").write_text(json.dumps(model))
    with started([str(PEER), "start", str(home)], core, home / "log", {}, home) as process:
        url = f"http://127.0.0.1:{ports['http_port']}/v2/models/{MODEL}"
        wait_until(lambda: answers(f"{url}/ready"), process, home / "log")
        yield Server(f"{url}/infer", process.pid)


@contextlib.contextmanager
def account(folder: Path) -> Iterator[dict[str, str]]:
    """Start an emulated AWS account on this core; return the environment variables that point SDKs to it."""
    log = folder / "account"
    with started([sys.executable, "-m", "tools.bench.account"], None, log, {}, ROOT) as process:
        wait_until(lambda: log.read_text().startswith("{"), process, log)
        environ: dict[str, str] = json.loads(log.read_text().splitlines()[0])
        yield environ


@contextlib.contextmanager
def serving(command: list[str], core: int, folder: Path, environ: dict[str, str]) -> Iterator[Server]:
    """Start a server of our stack, which logs its address on stderr."""
    log = Path(tempfile.mkstemp(dir=folder)[1])
    with started(command, core, log, {"HOST": "127.0.0.1", "PORT": "0", **environ}, ROOT) as process:
        wait_until(lambda: '"message":"live"' in log.read_text(), process, log)
        live = json.loads(log.read_text().splitlines()[0])
        url = f"http://127.0.0.1:{live['port']}/v2"
        wait_until(lambda: answers(f"{url}/health/ready"), process, log)
        yield Server(f"{url}/models/{MODEL}/infer", process.pid)


@contextlib.contextmanager
def started(
    command: list[str], core: int | None, log: Path, environ: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core until the block ends; its output goes to `log`."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environ}, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the condition holds.

    Raises:
        MlopsError: the process ended, or a minute passed.
    """
    deadline = time.monotonic() + 60
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise MlopsError(f"a server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Return True if a GET of `url` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def check_same_answer(ours: str, peer: str, body: bytes) -> None:
    """Check that both servers make the same prediction.

    Raises:
        AssertionError: the predictions differ.
    """
    found = []
    for url in (ours, peer):
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            (output,) = json.load(answer)["outputs"]
            found.append(float(output["data"][0]))
    assert abs(found[0] - found[1]) < 1e-4, f"ours answers {found[0]}, MLServer {found[1]}"


def check_log(ours: Server) -> None:
    """Check that the inference log dropped no record.

    Raises:
        AssertionError: records were dropped, or none were written.
    """
    with urllib.request.urlopen(ours.url.partition("/v2/")[0] + "/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    lost = [line for line in metrics.splitlines() if line.startswith("inference_log_dropped_records_total")]
    assert lost, metrics
    assert all(line.endswith(" 0.0") for line in lost), lost
    assert "inference_log_written_records_total 0.0" not in metrics, metrics


if __name__ == "__main__":
    for figure in measure():
        print(figure)
