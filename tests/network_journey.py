"""Ingest, train, serve and use the command line in an emulated account: `python -m tests.network_journey FOLDER`.

Each step is a process of its own, watched by `network_watch`, with a home directory that is empty at first.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.data.landing import upload
from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.registry import bundles
from pipelines.serving.golden import request_of
from tests.aws import emulated_account
from tests.pipelines.serving.server_process import ServerProcess
from tests.sample_project import ROOT, copy_as_forked
from tests.signing_environments import COMMIT, make_signing_environment

LOG, HOME = "left", "home"
"""In the folder: the log of `network_watch`, and the home directory of the processes."""

IMAGE = f"sha256:{'1a' * 32}"

COMMANDS = (
    ("--help",),
    ("up", "--help"),
    ("validate",),
    ("schemas", "--help"),
    ("new", "model", "churn"),
    ("completion", "bash"),
    ("ci", "select", "environments"),
    ("doctor", "--target", "aws"),
    ("preview", "--env", "dev", "--target", "aws"),
)
"""Command lines to run. The last two end with errors: there are no tools and no cluster."""


def main(folder: Path) -> None:
    """Run the journey; raise if a step fails."""
    with emulated_account():
        _travel(folder)


def _travel(folder: Path) -> None:
    project = Project(copy_as_forked(folder / "project", "requirements"))
    (dataset,), (model,) = project.dataset_names, project.model_names
    dev = make_signing_environment("dev", None, project.contract(dataset))
    environ = _environment(folder, dev)
    upload(dev, dataset, project.root / "data-contracts" / "samples" / f"{dataset}.csv")
    _run(folder, environ, "pipelines.data", "ingest", dataset)
    bundle = _run(folder, environ, "pipelines.training", model).splitlines()[-1]
    _ask(folder, environ, dev, model, bundle)
    for command in COMMANDS:
        _run(folder, environ, "pipelines.cli", *command, may_fail=command in COMMANDS[-2:])


def _environment(folder: Path, dev: EnvironmentDescriptor) -> dict[str, str]:
    home = folder / HOME
    home.mkdir()
    passed = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == "LANG"}
    return {
        **passed,
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        VARIABLE: dev.model_dump_json(),
        "SOURCE_COMMIT": COMMIT,
        "IMAGE_DIGEST": IMAGE,
        "RUN_ID": "run-1",
    }


def _run(folder: Path, environ: dict[str, str], *command: str, may_fail: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.network_watch", str(folder / LOG), *command],
        cwd=folder / "project",
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not may_fail:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}\n{done.stderr}")
    return done.stdout


def _ask(folder: Path, environ: dict[str, str], dev: EnvironmentDescriptor, model: str, bundle: str) -> None:
    """Serve a bundle, and ask for its golden predictions."""
    command = ["tests.network_watch", str(folder / LOG), "pipelines.serving", "--model", model, "--bundle", bundle]
    content = bundles.fetch(dev, model, bundle).files["golden.json"]
    request = json.dumps(request_of(parse(content.decode(), GoldenPredictions, Path("golden.json"))))
    with ServerProcess(command, environ) as server:
        address = urlsplit(server.url()).netloc
        server.wait_for("ready")
        connection = http.client.HTTPConnection(address, timeout=30)
        connection.request("POST", f"/v2/models/{model}/infer", request, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the server answered {answer.status}: {answer.read()!r}")
        connection.close()
        server.terminate()
        server.status()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
