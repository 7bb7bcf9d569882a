"""Try a bundle as the server would: load it in the serving runtime, check its golden predictions, time it."""

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

TIMED = 300
WARM_UP = 20


def try_bundle(project: Project, manifest: Bundle, files: Mapping[str, bytes]) -> TrialResult:
    """What a bundle does when it is loaded and asked. Whatever it does, it is told, not raised.

    Args:
        project: whose serving image pins the runtime.
        manifest, files: of the bundle. Its evidence must have been verified: a stranger's model is not loaded.

    Raises:
        MlopsError: the pinned serving requirements cannot be read.
    """
    import onnxruntime

    from pipelines.serving.golden import request_of, single_rows
    from pipelines.serving.model import Model
    from pipelines.serving.refusal import Refusal

    version, pinned = f"onnxruntime {onnxruntime.__version__}", f"onnxruntime {pinned_runtime(project.root)}"
    rows, problem, times = 0, "", []
    try:
        golden = parse(files["golden.json"], GoldenPredictions, Path("golden.json"))
        model = Model(manifest, files)
        model.check_golden(golden)
        rows = golden.inputs[0].shape[0]
        bodies = [json.dumps(request_of(row)).encode() for row in single_rows(golden)]
        for number in range(WARM_UP + TIMED):
            began = time.perf_counter()
            model.answer(bodies[number % rows], b"trial")
            if number >= WARM_UP:
                times.append((time.perf_counter() - began) * 1000)
    except (MlopsError, Refusal) as error:
        problem = error.what if isinstance(error, MlopsError) else f"it refuses a golden row: {error.message}"
    except Exception as error:  # whatever the runtime comes up with, the bundle does not work in it
        problem = f"{type(error).__name__}: {error}"
    return TrialResult(
        version=version,
        serving_version=pinned,
        problem=problem,
        golden_rows=rows,
        p99_ms=percentile(times, 0.99) if times else 0.0,
        requests=len(times),
    )


def pinned_runtime(root: Path) -> str:
    """The version of onnxruntime that the serving image installs.

    Raises:
        MlopsError: `requirements/serving.txt` does not pin one.
    """
    path = root / "requirements" / "serving.txt"
    found = re.search(r"^onnxruntime==([^ ;\\]+)", path.read_text() if path.is_file() else "", re.MULTILINE)
    if found is None:
        raise MlopsError(f"{path} pins no onnxruntime", fix="make lock")
    return found[1]


def percentile(values: list[float], share: float) -> float:
    """The least value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
