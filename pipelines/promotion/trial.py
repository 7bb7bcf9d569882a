"""Bundle trial: load a bundle as the server does, check its golden predictions and time its answers."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.declarations.bundle import Bundle, GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.facts import TrialResult

ROUNDS = 3
"""Number of times that the latency is measured; the best counts, because a busy machine can only add to it."""

TIMED = 100
"""Number of one-row requests to time in each round."""

WARM_UP = 20
"""Number of warm-up requests before them."""


def try_bundle(project: Project, manifest: Bundle, files: Mapping[str, bytes], *, rounds: int = ROUNDS) -> TrialResult:
    """Load a bundle and send it requests. Any failure of the bundle is part of the result, not an exception.

    Args:
        project: the project whose serving requirements pin the runtime.
        manifest, files: the bundle. Verify its evidence first, because its model is loaded here.
        rounds: number of times that the latency is measured; 0 checks the golden predictions only.

    Raises:
        MlopsError: the pinned serving requirements cannot be read.
    """
    from pipelines.serving.golden import request_of, row_count, single_rows
    from pipelines.serving.predictor import Predictor
    from pipelines.serving.request_error import RequestError
    from pipelines.serving.runtime import VERSION

    version, pinned = f"onnxruntime {VERSION}", f"onnxruntime {pinned_runtime(project.root)}"
    rows, problem = 0, ""
    measured: list[list[float]] = []
    try:
        golden = parse(files["golden.json"], GoldenPredictions, Path("golden.json"))
        predictor = Predictor(manifest, files)
        predictor.check_golden(golden)
        rows = row_count(golden)
        bodies = [json.dumps(request_of(row)).encode() for row in single_rows(golden)]
        for number in range(WARM_UP if rounds else 0):
            predictor.answer(bodies[number % rows], b"trial")
        for _ in range(rounds):
            measured.append([])
            for number in range(TIMED):
                began = time.perf_counter()
                predictor.answer(bodies[number % rows], b"trial")
                measured[-1].append((time.perf_counter() - began) * 1000)
    except (MlopsError, RequestError) as error:
        problem = error.what if isinstance(error, MlopsError) else f"the model refuses a golden row: {error.message}"
    except Exception as error:  # onnxruntime's exceptions have no common base class
        problem = f"{type(error).__name__}: {error}"
    return TrialResult(
        version=version,
        serving_version=pinned,
        problem=problem,
        golden_rows=rows,
        p99_ms=min((percentile(times, 0.99) for times in measured if times), default=0.0),
        requests=sum(map(len, measured)),
    )


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


def percentile(values: list[float], share: float) -> float:
    """Return the nearest-rank percentile: the least value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
