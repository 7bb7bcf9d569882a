"""Bundle trial: a bundle is loaded as the server loads it, and every failure is reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from onnx import TensorProto, helper

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion import trial
from pipelines.promotion import trial_process as module
from pipelines.promotion.facts import TrialResult
from pipelines.promotion.trial import pinned_runtime, try_bundle
from pipelines.promotion.trial_process import ROUNDS, TIMED, WARM_UP, TrialAnswer, percentile, run_trial
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_error import RequestError
from tests.pipelines.serving.bundles import MadeBundle, classifier_bundle, graph, linear_bundle, with_file
from tests.sample_project import ROOT

HERE = f"onnxruntime {onnxruntime.__version__}"


def tried(bundle: MadeBundle, rounds: int = ROUNDS, **files: bytes) -> TrialAnswer:
    """Try a bundle in this process."""
    content = bundle.files | {f"{name}.json": text for name, text in files.items()}
    return run_trial(bundle.manifest, content, rounds)


def isolated(bundle: MadeBundle, root: Path = ROOT, **options: Any) -> TrialResult:
    """Try a bundle as the gates do, in another process."""
    return try_bundle(Project(root), bundle.manifest, bundle.files, rounds=1, **options)


def bundle_of(nodes: list[Any]) -> MadeBundle:
    """Return a bundle whose nodes make `extra`, one number, which is added to the age."""
    nodes = [
        *nodes,
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("Gather", ["features", "first"], ["age"], axis=1),
        helper.make_node("Add", ["age", "extra"], ["variable"]),
    ]
    model = graph(nodes, {"features": (TensorProto.FLOAT, 10)}, {"variable": (TensorProto.FLOAT, 1)})
    return with_file(linear_bundle(expected=59.0), "model.onnx", model)


def test_a_bundle_is_tried_in_a_process_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    run, environ = subprocess.run, dict[str, str]()

    def noted(command: list[str], **options: Any) -> Any:
        environ.update(options["env"])
        return run(command, **options)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GH_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "run", noted)
    found = isolated(linear_bundle())
    assert (found.problem, found.golden_rows, found.requests) == ("", 1, TIMED)
    assert 0 < found.p99_ms < 1000
    assert found.version == found.serving_version == HERE
    assert "secret" not in environ.values()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux confines a process")
def test_the_process_reads_nothing_but_its_code_and_the_bundle_and_opens_no_socket(tmp_path: Path) -> None:
    secret, own = tmp_path / "credentials", tmp_path / "bundle"
    secret.write_text("secret")
    own.mkdir()
    code = f"""
import socket, sys, resource
from pathlib import Path
from pipelines.promotion.trial_process import PROCESS_MEMORY, restrict
from pipelines.training.isolation import code_folders
restrict([Path({str(own)!r}), *code_folders(sys.path)])
(thread,) = Path("/proc/self/task").iterdir()
assert resource.getrlimit(resource.RLIMIT_DATA)[1] == PROCESS_MEMORY
for forbidden in (Path({str(secret)!r}).read_text, Path({str(ROOT / "README.md")!r}).read_text, socket.socket):
    try:
        forbidden()
    except PermissionError:
        print("refused")
"""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(trial._SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n" * 3, done.stderr


def test_a_model_that_needs_too_much_memory_does_not_work() -> None:
    greedy = [
        helper.make_node("Constant", [], ["size"], value_ints=[3_000_000_000]),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["extra"], keepdims=1),
    ]
    assert "bad_alloc" in isolated(bundle_of(greedy)).problem


def test_a_model_that_does_not_end_does_not_work() -> None:
    step = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"]) for name in ("condition", "value")],
        "step",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_in", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, [1]),
        ],
    )
    endless = [
        helper.make_node("Constant", [], ["times"], value_int=2**62),
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])),
        helper.make_node("Constant", [], ["zero"], value_floats=[0.0]),
        helper.make_node("Loop", ["times", "yes", "zero"], ["extra"], body=step),
    ]
    found = isolated(bundle_of(endless), seconds=2)
    assert found.problem == "the model did not answer its golden requests within 2 s"
    assert found.interrupted


def test_a_process_that_is_killed_or_prints_nothing_is_a_failure_of_the_bundle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for status, printed, expected in (
        (-9, b"", "was ended by the signal SIGKILL; it may use 4 GiB"),
        (-40, b"", "was ended by the signal 40; it may use 4 GiB"),
        (1, b"", "ended with status 1: MemoryError; it may use 4 GiB"),
        (0, b"", "did not print its results"),
        (0, b"{}", "did not print its results"),
    ):
        done = SimpleNamespace(returncode=status, stdout=printed, stderr=b"Traceback\nMemoryError\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        found = isolated(linear_bundle())
        assert expected in found.problem
        assert found.interrupted is (status < 0), "a machine without memory may have ended it"


def test_a_bundle_is_timed_after_a_warm_up_and_the_best_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th request of a round takes n milliseconds, and three times as long in all rounds but the second."""
    slower = [3, 1, 3]
    ticks = iter([tick for by in slower for n in range(1, TIMED + 1) for tick in (float(n), n + by * n / 1000)])
    monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    found = tried(linear_bundle())
    assert (found.problem, found.golden_rows, found.requests) == ("", 1, 300)
    assert found.p99_ms == pytest.approx(99)
    assert next(ticks, None) is None


def test_other_work_on_the_machine_is_not_the_latency_of_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Predictor.answer

    def held_up(self: Predictor, body: bytes, name: bytes) -> Any:
        time.sleep(0.002)  # as if another process had the core
        return answer(self, body, name)

    undisturbed = tried(linear_bundle(), rounds=1).p99_ms
    monkeypatch.setattr(Predictor, "answer", held_up)
    assert tried(linear_bundle(), rounds=1).p99_ms < undisturbed + 1.0


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


def test_the_result_names_the_runtime_of_the_trial_and_of_the_serving_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements").mkdir()
    pins = "onnx==1.0\n# onnxruntime==0.1\nonnxruntime==9.8.7 \\\n    --hash=sha256:0\nonnxruntime==1.2\n"
    (tmp_path / "requirements" / "serving.txt").write_text(pins)
    answer = TrialAnswer(problem="", golden_rows=1, p99_ms=1.0, requests=100)
    monkeypatch.setattr(trial, "_run", lambda *_: answer)
    found = isolated(linear_bundle(), tmp_path)
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
        isolated(linear_bundle(), tmp_path)
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
