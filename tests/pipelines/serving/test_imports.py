"""The server imports only what the serving image installs, and stays small."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.pipelines.serving.bundles import linear_bundle
from tests.pipelines.serving.conftest import features
from tests.pipelines.serving.server_process import ROOT

pytestmark = pytest.mark.slow

PROGRAM = """
import sys

allowed = set(sys.argv[1].split(",")) | sys.stdlib_module_names | {"pipelines", "__main__"}


class OnlyTheServingGroup:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is not in the serving image", name=name)


sys.meta_path.insert(0, OnlyTheServingGroup())

import pickle, threading
from pathlib import Path
import pipelines.serving.__main__
import pipelines.serving.check
import pipelines.registry.evidence
from pipelines.serving.application import Application
from pipelines.serving.inference_log import InferenceLog
from pipelines.serving.logs_bucket import logs_bucket
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.serving.predictor import Predictor
from pipelines.serving.server import server_config
from pipelines.declarations.bundle import Bundle

folder = Path(sys.argv[2])
manifest = Bundle.model_validate_json((folder / "bundle.json").read_bytes())
model = Predictor(manifest, {path.name: path.read_bytes() for path in folder.iterdir()})
metrics = RequestMetrics(model.name, model.digest)
application = Application(model.name, model.digest, metrics)
server_config(application, finish_seconds=1).load()
body = (folder / "body").read_bytes()
try:
    logs_bucket("no-such-bucket")("key", b"content")
except Exception as error:
    assert type(error).__name__ == "EndpointConnectionError", error
else:
    raise AssertionError("there is no such endpoint")
for _ in range(2000):
    assert model.answer(body, b"id").rows == 1
metrics.exposition()
assert not {"pandas", "sklearn", "pyarrow", "scipy", "onnx", "mlserver"} & set(sys.modules)
for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []:
    if line.startswith("VmRSS:"):
        print(int(line.split()[1]) / 1024)
"""


def serving_modules() -> set[str]:
    """Return the top-level modules of the distributions that `requirements/serving.txt` pins."""
    text = (ROOT / "requirements" / "serving.txt").read_text()
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}
    modules: set[str] = set()
    for distribution in distributions():
        if re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower() in pinned:
            for file in distribution.files or ():
                top = file.parts[0]
                if top.endswith((".py", ".so", ".pyd")):
                    modules.add(top.split(".")[0])
                elif "." not in top and top != "__pycache__":
                    modules.add(top)
    return modules


@pytest.fixture(scope="module")
def megabytes(tmp_path_factory: pytest.TempPathFactory) -> float | None:
    """Return the resident memory of a server that answered requests and can import only what its image installs."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle = linear_bundle()
    for name, content in bundle.files.items():
        (folder / name).write_bytes(content)
    (folder / "bundle.json").write_bytes(bundle.manifest.manifest())
    (folder / "body").write_bytes(json.dumps(features()).encode())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(sorted(serving_modules())), str(folder)],
        cwd=ROOT,
        env={
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout) if done.stdout else None


def test_the_server_imports_only_what_the_serving_image_installs(megabytes: float | None) -> None:
    assert megabytes is None or megabytes > 0


def test_the_server_stays_under_150_megabytes(megabytes: float | None) -> None:
    if megabytes is None:
        pytest.skip("resident memory is read from Linux' /proc")
    assert megabytes < 150


def test_the_pinned_requirements_include_what_the_server_imports() -> None:
    asked = Path(ROOT / "requirements" / "serving.in").read_text()
    assert {"msgspec", "onnxruntime", "uvicorn", "boto3", "numpy"} <= set(asked.split())
    assert {"msgspec", "onnxruntime", "uvicorn", "boto3", "numpy"} <= serving_modules()


def test_the_canary_check_loads_no_model_runtime() -> None:
    code = "import sys, pipelines.serving.check; print(*{'numpy', 'onnxruntime', 'uvicorn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
