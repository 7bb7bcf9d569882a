"""Process that tries a bundle: `python -m pipelines.promotion.trial_process FOLDER ROUNDS`.

An ONNX file comes from training code, and can ask for any amount of memory and time. So `try_bundle` starts this
process, which limits and confines itself before it loads the model. The folder has `bundle.json` and the files that it
lists. Prints a `TrialAnswer` as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipelines.declarations.bundle import MANIFEST, Bundle, GoldenPredictions
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.process_limits import limit_memory

ROUNDS = 3
"""Number of times that the latency is measured; the best counts, because other work can only add to it."""

TIMED = 100
"""Number of one-row requests to time in each round."""

WARM_UP = 20
"""Number of warm-up requests before them."""

PROCESS_MEMORY = 4 << 30
"""Private memory of the process in bytes, at most."""

LONGEST_PROBLEM = 2000
"""Maximum length of a problem, in characters."""


class TrialAnswer(BaseModel):
    """Result of a trial.

    Attributes:
        problem: why the bundle does not work; "" if it does.
        golden_rows: number of golden rows.
        p99_ms: 99th percentile of the CPU time of one-row requests, in milliseconds. The model never waits, so this is
            its latency on an idle core, however busy the machine is that runs the gates.
        requests: number of requests that were timed.
        interrupted: whether the process ended before its answer, by the time limit or a signal. Both also happen to a
            good bundle on a machine without time or memory.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    problem: str
    golden_rows: int
    p99_ms: float
    requests: int
    interrupted: bool = False


def run_trial(manifest: Bundle, files: Mapping[str, bytes], rounds: int) -> TrialAnswer:
    """Load a bundle as the server does, check its golden predictions and time its answers, in this process.

    Any failure of the bundle is part of the answer, not an exception.

    Args:
        manifest, files: the bundle.
        rounds: number of times that the latency is measured; 0 checks the golden predictions only.
    """
    from pipelines.serving.golden import request_of, row_count, single_rows
    from pipelines.serving.predictor import Predictor
    from pipelines.serving.request_error import RequestError

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
                began = time.process_time()
                predictor.answer(bodies[number % rows], b"trial")
                measured[-1].append((time.process_time() - began) * 1000)
    except (MlopsError, RequestError) as error:
        problem = error.what if isinstance(error, MlopsError) else f"the model refuses a golden row: {error.message}"
    except Exception as error:  # onnxruntime's exceptions have no common base class
        problem = f"{type(error).__name__}: {error}"
    return TrialAnswer(
        problem=problem[:LONGEST_PROBLEM],
        golden_rows=rows,
        p99_ms=min((percentile(times, 0.99) for times in measured if times), default=0.0),
        requests=sum(map(len, measured)),
    )


def percentile(values: list[float], share: float) -> float:
    """Return the nearest-rank percentile: the least value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def restrict(readable: Iterable[Path]) -> None:
    """Limit the memory of this process and, where the system can, confine it to some files and folders."""
    from pipelines.training.isolation import confine, is_enforceable

    limit_memory(PROCESS_MEMORY)
    if is_enforceable():
        with suppress(MlopsError):  # the kernel cannot; the limits hold
            confine(readable, [])


def main(arguments: list[str]) -> int:
    """Try the bundle of a folder, and print the answer."""
    from pipelines.training.isolation import code_folders

    folder, rounds = Path(arguments[0]), int(arguments[1])
    restrict([folder, *code_folders(sys.path)])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = parse(files.pop(MANIFEST), Bundle, Path(MANIFEST))
    print(run_trial(manifest, files, rounds).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
