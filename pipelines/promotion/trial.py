"""Bundle trial: load a bundle as the server does, check its golden predictions and time its answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from pipelines.declarations.bundle import MANIFEST, Bundle
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.facts import TrialResult
from pipelines.promotion.trial_process import PROCESS_MEMORY, ROUNDS, TrialAnswer
from pipelines.training.isolation import signal_name

LONGEST_SECONDS = 300
"""Time limit of a trial."""

_ENVIRONMENT = {"LANG": "C.UTF-8", "ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_KEPT = ("PATH", "LD_LIBRARY_PATH", "TZ")
_SOURCE = Path(__file__).parents[2]


def try_bundle(
    project: Project,
    manifest: Bundle,
    files: Mapping[str, bytes],
    *,
    rounds: int = ROUNDS,
    seconds: float = LONGEST_SECONDS,
) -> TrialResult:
    """Load a bundle and send it requests, in a process with limits and without credentials.

    Any failure of the bundle is part of the result, not an exception.

    Args:
        project: the project whose serving requirements pin the runtime.
        manifest, files: the bundle. Verify its evidence first, because its model is loaded here.
        rounds: number of times that the latency is measured; 0 checks the golden predictions only.
        seconds: time limit.

    Raises:
        MlopsError: the pinned serving requirements cannot be read.
    """
    version = f"onnxruntime {metadata.version('onnxruntime')}"
    pinned = f"onnxruntime {pinned_runtime(project.root)}"
    answer = _run(manifest, files, rounds, seconds)
    return TrialResult(version=version, serving_version=pinned, **answer.model_dump())


def _run(manifest: Bundle, files: Mapping[str, bytes], rounds: int, seconds: float) -> TrialAnswer:
    """Run the trial in another process."""
    with tempfile.TemporaryDirectory(prefix="mlops-trial-") as folder:
        for name, content in {**files, MANIFEST: manifest.manifest()}.items():
            Path(folder, name).write_bytes(content)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = os.pathsep.join([str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pipelines.promotion.trial_process", folder, str(rounds)],
                cwd=folder,
                env={**kept, **_ENVIRONMENT, "HOME": folder, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return _failed(f"the model did not answer its golden requests within {seconds:g} s", interrupted=True)
    if done.returncode:
        why = _why_ended(done.returncode, done.stderr.decode(errors="replace"))
        return _failed(why, interrupted=done.returncode < 0)
    try:
        return TrialAnswer.model_validate_json(done.stdout.splitlines()[-1])
    except (ValidationError, IndexError):
        return _failed("the process that loads the model did not print its results")


def _failed(problem: str, *, interrupted: bool = False) -> TrialAnswer:
    return TrialAnswer(problem=problem, golden_rows=0, p99_ms=0.0, requests=0, interrupted=interrupted)


def _why_ended(status: int, errors: str) -> str:
    memory = f"it may use {PROCESS_MEMORY >> 30} GiB of memory"
    if status < 0:
        return f"the process that loads the model was ended by the signal {signal_name(-status)}; {memory}"
    last = (errors.strip().splitlines() or [""])[-1]
    return f"the process that loads the model ended with status {status}: {last[:300]}; {memory}"


def pinned_runtime(root: Path) -> str:
    """Return the version of onnxruntime in the serving image.

    Raises:
        MlopsError: `requirements/serving.txt` does not pin it.
    """
    path = root / "requirements" / "serving.txt"
    found = re.search(r"^onnxruntime==([^\s;\\]+)", path.read_text() if path.is_file() else "", re.MULTILINE)
    if found is None:
        raise MlopsError(f"{path}: expected a pinned onnxruntime, found none", fix="run `make lock`")
    return found[1]
