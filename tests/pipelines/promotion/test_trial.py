"""Bundle trial: a bundle is loaded as the server loads it, and every failure is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion import trial as module
from pipelines.promotion.facts import TrialResult
from pipelines.promotion.trial import ROUNDS, TIMED, WARM_UP, percentile, pinned_runtime, try_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_error import RequestError
from tests.pipelines.promotion.promotion_project import ROOT
from tests.pipelines.serving.bundles import MadeBundle, classifier_bundle, linear_bundle

HERE = f"onnxruntime {onnxruntime.__version__}"


def tried(bundle: MadeBundle, root: Path = ROOT, rounds: int = ROUNDS, **files: bytes) -> TrialResult:
    content = bundle.files | {f"{name}.json": text for name, text in files.items()}
    return try_bundle(Project(root), bundle.manifest, content, rounds=rounds)


def test_a_bundle_is_timed_after_a_warm_up_and_the_best_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th request of a round takes n milliseconds, and three times as long in all rounds but the second."""
    slower = [3, 1, 3]
    ticks = iter([tick for by in slower for n in range(1, TIMED + 1) for tick in (float(n), n + by * n / 1000)])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    found = tried(linear_bundle())
    assert (found.problem, found.golden_rows, found.requests) == ("", 1, 300)
    assert found.p99_ms == pytest.approx(99)
    assert next(ticks, None) is None
    assert found.version == found.serving_version == HERE


def test_golden_rows_are_sent_in_turn_as_single_row_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[float]] = []
    answer = Predictor.answer

    def noted(model: Predictor, body: bytes, identity: bytes) -> Any:
        if identity == b"trial":
            asked.append(json.loads(body)["inputs"][0]["data"])
        return answer(model, body, identity)

    monkeypatch.setattr(Predictor, "answer", noted)
    assert tried(classifier_bundle()).golden_rows == 2
    assert asked == [[0.0], [50.0]] * ((ROUNDS * TIMED + WARM_UP) // 2)


def test_without_rounds_only_the_golden_predictions_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tried(linear_bundle(), rounds=0)
    assert (found.problem, found.golden_rows, found.requests, found.p99_ms) == ("", 1, 0, 0.0)
    monkeypatch.setattr(Predictor, "check_golden", lambda *_: (_ for _ in ()).throw(MlopsError("another answer")))
    assert tried(linear_bundle(), rounds=0).problem == "another answer"


def test_the_result_names_the_runtime_of_the_trial_and_of_the_serving_image(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    pins = "onnx==1.0\n# onnxruntime==0.1\nonnxruntime==9.8.7 \\\n    --hash=sha256:0\nonnxruntime==1.2\n"
    (tmp_path / "requirements" / "serving.txt").write_text(pins)
    found = tried(linear_bundle(), tmp_path)
    assert (found.version, found.serving_version) == (HERE, "onnxruntime 9.8.7")


@pytest.mark.parametrize(("line", "version"), [("onnxruntime==1.2", "1.2"), ("onnxruntime==1.2;python>'3'", "1.2")])
def test_a_pinned_version_excludes_markers(tmp_path: Path, line: str, version: str) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "serving.txt").write_text(line)
    assert pinned_runtime(tmp_path) == version


@pytest.mark.parametrize("content", [None, "", "onnxruntime>=1.2\n", "  onnxruntime==1.2\n"])
def test_a_serving_image_without_a_pinned_runtime_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "requirements" / "serving.txt"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(MlopsError) as caught:
        tried(linear_bundle(), tmp_path)
    assert caught.value.what == f"{path}: expected a pinned onnxruntime, found none"
    assert caught.value.fix == "run `make lock`"


def test_a_wrong_golden_prediction_is_reported_and_nothing_is_timed() -> None:
    found = tried(linear_bundle(expected=7.0))
    assert found.problem.startswith("golden.json: output 'variable', value 0: expected 7")
    assert (found.golden_rows, found.p99_ms, found.requests) == (0, 0.0, 0)


def test_invalid_golden_predictions_are_reported() -> None:
    assert tried(linear_bundle(), golden=b"{}").problem.startswith("golden.json:1: inputs: ")


def test_a_bundle_without_golden_rows_is_reported() -> None:
    golden = json.loads(linear_bundle().files["golden.json"])
    for tensor in (*golden["inputs"], *golden["outputs"]):
        tensor |= {"shape": [0, *tensor["shape"][1:]], "data": []}
    found = tried(linear_bundle(), golden=json.dumps(golden).encode())
    assert "at least 1 row" in found.problem
    assert (found.golden_rows, found.p99_ms, found.requests) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (lambda: RequestError(400, "age: at most 120"), "the model refuses a golden row: age: at most 120"),
        (lambda: RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (lambda: MlopsError("no memory", fix="x"), "no memory"),
    ],
)
def test_a_failure_while_timing_is_reported(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[], Exception], says: str
) -> None:
    answer, asked = Predictor.answer, iter(range(TIMED + WARM_UP))

    def fail_late(model: Predictor, body: bytes, identity: bytes) -> Any:
        if identity == b"trial" and next(asked) == WARM_UP + 5:
            raise fails()
        return answer(model, body, identity)

    monkeypatch.setattr(Predictor, "answer", fail_late)
    found = tried(linear_bundle())
    assert (found.problem, found.golden_rows, found.requests) == (says, 1, 5)


@pytest.mark.parametrize(
    ("share", "found"),
    [(0.0, 1.0), (0.01, 1.0), (0.011, 2.0), (0.5, 50.0), (0.501, 51.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)],
)
def test_percentiles_use_the_nearest_rank(share: float, found: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == found
