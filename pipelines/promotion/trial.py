"""Try a bundle as the server would: load it in the serving runtime, check its golden predictions, time it."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.declarations.bundle import Bundle, GoldenPredictions, Tensor
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.facts import Runtime

TIMED = 300
WARM_UP = 20


def try_bundle(project: Project, manifest: Bundle, files: Mapping[str, bytes]) -> Runtime:
    """What a bundle does when it is loaded and asked.

    Raises:
        MlopsError: the pinned serving requirements cannot be read.
    """
    import onnxruntime

    from pipelines.serving.model import Model

    version, pinned = f"onnxruntime {onnxruntime.__version__}", f"onnxruntime {pinned_runtime(project.root)}"
    golden = None
    problem, times = "", []
    try:
        golden = parse(files["golden.json"], GoldenPredictions, Path("golden.json"))
        model = Model(manifest, files)
        model.check_golden(golden)
        body = json.dumps({"inputs": [first_row(tensor) for tensor in golden.inputs]}).encode()
        for number in range(WARM_UP + TIMED):
            began = time.perf_counter()
            model.answer(body, b'"trial"')
            if number >= WARM_UP:
                times.append((time.perf_counter() - began) * 1000)
    except MlopsError as error:
        problem = error.what
    return Runtime(
        version=version,
        serving_version=pinned,
        problem=problem,
        golden_rows=golden.inputs[0].shape[0] if golden else 0,
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


def first_row(tensor: Tensor) -> dict[str, object]:
    """The first row of an input, as a request holds it."""
    width = math.prod(tensor.shape[1:])
    value = tensor.model_dump(mode="json")
    return {**value, "shape": [1, *tensor.shape[1:]], "data": value["data"][:width]}


def percentile(values: list[float], share: float) -> float:
    """The least value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
