"""No process with rights loads an ONNX model, and a process that a model has taken over can only choose predictions."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.errors import MlopsError
from pipelines.serving.runtime import LoadedModel
from pipelines.training import confined_model, confined_process
from pipelines.training.confined_model import FailedRowsError, open_model
from pipelines.training.onnx_graph import check_graph
from tests.pipelines.serving.bundles import failing_bundle, mixed_bundle
from tests.pipelines.training.models import crashing_model, endless_model, linear, load_graph
from tests.pipelines.training.test_graph import REFUSED, custom_operator, weights_outside

pytestmark = pytest.mark.slow

ROWS = np.array([[1, 1], [3, 0], [2, 5]], np.float32)
INPUTS = (TensorSpec(name="features", datatype="FP32", shape=(-1, 2)),)
OUTPUTS = (TensorSpec(name="prediction", datatype="FP32", shape=(-1, 1)),)
SUBJECT = "the ONNX model of loans"

LYING = """
    import json, os, sys

    def say(header, content=b""):
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
        sys.stdout.flush()
        os.write(int(sys.argv[1]), header + b"\\n" + content)

    for _ in range({answers}):
        say({})
    {lie}
    sys.stdin.buffer.read()
"""
"""A process that does what it wants once it has answered some requests."""

TAKEN_OVER = """
    import json, os, sys
    from pipelines.training import model_worker

    def lie(model, kind, feed, outputs, answers):
        {lie}

    model_worker._predict = lie
    model_worker.main(int(sys.argv[1]))
"""
"""The process as it is, which does what it wants once it is asked for predictions."""


@pytest.fixture
def run_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run code in place of the process that loads the model."""

    def replace(code: str, **parts: str) -> None:
        folder = tmp_path / "code"
        folder.mkdir()
        lines = textwrap.dedent(code)
        for name, part in parts.items():
            before = next(line for line in lines.splitlines() if "{" + name + "}" in line).partition("{")[0]
            indent = before if before.isspace() else ""
            lines = lines.replace("{" + name + "}", textwrap.indent(part, indent).strip())
        (folder / "lying_worker.py").write_text(lines)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setattr(confined_model, "WORKER", "lying_worker")

    return replace


def ask(use: Callable[[LoadedModel], Any], content: bytes | None = None, outputs: Any = OUTPUTS) -> Any:
    """Load a model of two numbers in another process, and use it."""
    model = linear([2.0, -1.0]).SerializeToString() if content is None else content
    with open_model(model, "loans", "training.resources.memory") as opened:
        return use(opened.load(INPUTS, outputs))


def predict(model: LoadedModel) -> Any:
    return model.run({"features": ROWS})


def refusal(use: Callable[[LoadedModel], Any] = predict, content: bytes | None = None, outputs: Any = OUTPUTS) -> str:
    with pytest.raises(MlopsError) as caught:
        ask(use, content, outputs)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


# --- an ordinary model -----------------------------------------------------------------------------------------------


def test_a_model_in_another_process_predicts_as_one_in_this_process() -> None:
    def use(model: LoadedModel) -> tuple[Any, Any]:
        model.row["features"][:] = ROWS[2:]
        return predict(model)[0].tolist(), model.run_row()

    expected = load_graph(check_graph(linear([2.0, -1.0]))).run({"features": ROWS})[0].tolist()
    assert ask(use) == (expected, [[-1.0]])


def test_values_of_every_type_come_back_as_they_are() -> None:
    made = mixed_bundle()
    feed: dict[str, np.ndarray[Any, Any]] = {
        "wide": np.array([[1, 4], [1, 0]], np.float64),
        "small": np.array([[3], [-4]], np.int32),
        "large": np.array([[2**62], [-7]], np.int64),
        "flag": np.array([[True], [False]]),
        "town": np.array([["Ulm"], ['Köln "1"\n🚂']], object),
    }
    with open_model(made.files["model.onnx"], "towns", "batch.resources.memory") as opened:
        graph = opened.check()
        here, there = load_graph(graph), opened.load(graph.inputs, graph.outputs)
        for expected, found in zip(here.run(feed), there.run(feed), strict=True):
            assert (expected.dtype, expected.tolist()) == (found.dtype, found.tolist())
        for name, values in feed.items():
            here.row[name][:] = there.row[name][:] = values[:1]
        assert here.run_row() == there.run_row() == [[0.25], [3], [2**62], [True], ["Ulm"]]


def test_a_graph_is_described_as_it_would_be_here() -> None:
    model = linear([2.0, -1.0]).SerializeToString()
    with open_model(model, "loans", "training.resources.memory") as opened:
        assert opened.check() == check_graph(model)


@pytest.mark.parametrize("make", [custom_operator, weights_outside])
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(make: Callable[[], onnx.ModelProto]) -> None:
    model = make().SerializeToString()
    with (
        open_model(model, "loans", "training.resources.memory") as opened,
        pytest.raises(MlopsError, match=REFUSED[make]),
    ):
        opened.check()
    assert "model.onnx cannot be loaded" in refusal(content=model), "by the runtime as well"


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", b"\xff" * 100])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    assert "model.onnx cannot be loaded" in refusal(content=content)


def test_rows_at_which_the_model_fails_are_no_end_of_the_process() -> None:
    made = failing_bundle()
    with open_model(made.files["model.onnx"], "codes", "batch.resources.memory") as opened:
        graph = opened.check()
        model = opened.load(graph.inputs, graph.outputs)
        with pytest.raises(FailedRowsError):
            model.run({"code": np.array([[1], [99]])})
        assert model.run({"code": np.array([[1]])})[0].tolist() == [[2.0]]


# --- a hostile model -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors do not trap")
def test_a_valid_model_that_crashes_the_runtime_ends_the_other_process_only() -> None:
    model = crashing_model(2).SerializeToString()
    assert refusal(content=model) == (
        f"{SUBJECT}: the process that loads it was ended by the signal SIGFPE\n"
        "  fix: export the model again, with other operators"
    )


def test_a_model_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model = endless_model(2).SerializeToString()

    def use(loaded: LoadedModel) -> Any:
        monkeypatch.setattr(confined_model, "ANSWER_SECONDS", 0.2)
        return predict(loaded)

    assert f"{SUBJECT}: expected an answer within 0.2 s, found none\n  fix: " in refusal(use, model)


def test_a_model_that_needs_too_much_memory_fails_at_its_rows() -> None:
    nodes = [
        helper.make_node("Constant", [], ["size"], value_ints=[3_000_000_000]),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["most"], keepdims=1),
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "most"], ["prediction"]),
    ]
    model = linear([1.0, 1.0])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    with pytest.raises(FailedRowsError, match="bad_alloc"):
        ask(predict, model.SerializeToString())


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        ('say({"arrays": [{"shape": [2, 1], "size": 8}]}, bytes(8))', "expected the shape [3, 1], found [2, 1]"),
        ('say({"arrays": [{"shape": [4, 1], "size": 16}]}, bytes(16))', "expected the shape [3, 1], found [4, 1]"),
        ('say({"arrays": [{"shape": [3], "size": 12}]}, bytes(12))', "expected the shape [3, 1], found [3]"),
        ('say({"arrays": [{"shape": [3, 1], "size": 11}]}, bytes(11))', "found something else"),
        ('say({"arrays": [{"shape": [3, 1], "size": 1 << 60}]})', "found something else"),
        ('say({"arrays": [{"shape": [-3, -1], "size": 12}]}, bytes(12))', "found something else"),
        ('say({"arrays": []})', "found something else"),
        ('say({"arrays": [{"shape": [3, 1], "size": 12}] * 2}, bytes(24))', "found something else"),
        ('say({"arrays": [{"shape": [3.0, 1], "size": 12}]}, bytes(12))', "found something else"),
        ('say({"predictions": [0, 0, 0]})', "found something else"),
        ('say({"error": "text that may quote rows"})', "found something else"),
        ('say({"failed": "x" * 3000})', "found something else"),
        ('say(b"x" * (2 << 20))', "found something else"),
        ('say(b"\\x80\\x04cos\\nsystem\\n.")', "found something else"),
        ('say({"arrays": [{"shape": [3, 1], "size": 12}]}, bytes(11)); os._exit(0)', "ended with exit code 0 before"),
        ("os._exit(7)", "ended with exit code 7 before it had an answer"),
        ("os.kill(os.getpid(), 11)", "ended by the signal SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "SIGKILL\n  fix: raise training.resources.memory in model.yaml"),
    ],
)
def test_answers_other_than_the_predictions_of_these_rows_are_refused(
    run_instead: Callable[..., None], lie: str, expected: str
) -> None:
    run_instead(LYING, answers="2", lie=lie)
    assert expected in refusal()


@pytest.mark.parametrize(
    ("datatype", "lie"),
    [
        ("BOOL", 'say({"arrays": [{"shape": [3, 1], "size": 3}]}, b"\\0\\7\\1")'),
        ("BYTES", 'say({"arrays": [{"shape": [3, 1], "size": 3}]}, b"[1]")'),
        ("BYTES", 'say({"arrays": [{"shape": [3, 1], "size": 9}]}, b\'["a","b"]\')'),
        ("BYTES", 'say({"arrays": [{"shape": [3, 1], "size": 20}]}, b\'["\\\\ud800", "b", "c"]\')'),
        ("BYTES", 'say({"arrays": [{"shape": [3, 1], "size": 1 << 40}]})'),
    ],
)
def test_values_of_another_type_are_refused(run_instead: Callable[..., None], datatype: Any, lie: str) -> None:
    run_instead(LYING, answers="2", lie=lie)
    outputs = (TensorSpec(name="prediction", datatype=datatype, shape=(-1, 1)),)
    assert "found something else on the channel to the job" in refusal(outputs=outputs)


def test_predictions_that_would_take_too_much_memory_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined_model, "LARGEST_ANSWER", 11)
    expected = f"{SUBJECT}: expected predictions of 3 rows of at most 11 bytes, found outputs of 12 bytes"
    assert refusal().startswith(expected)


def test_a_process_that_says_nothing_more_is_not_waited_for(
    run_instead: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined_process, "LAST_SECONDS", 0.05)
    run_instead(LYING, answers="2", lie="os.close(int(sys.argv[1]))")
    assert f"{SUBJECT}: the process that loads it closed the channel to the job before" in refusal()


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "features", "datatype": "OBJECT", "shape": [-1, 2]},
        {"name": "features", "datatype": "FP32", "shape": "long"},
        {"name": "features", "datatype": "FP32", "shape": [-1, 2], "columns": []},
    ],
)
def test_a_graph_is_described_by_names_types_and_shapes_only(
    run_instead: Callable[..., None], tensor: dict[str, Any]
) -> None:
    run_instead(LYING, answers="1", lie=f"say({{'inputs': [{tensor}], 'outputs': []}})")
    with (
        open_model(b"bytes", "loans", "training.resources.memory") as opened,
        pytest.raises(MlopsError, match="found something else"),
    ):
        opened.check()


def test_the_reason_of_a_refusal_does_nothing_in_a_terminal(run_instead: Callable[..., None]) -> None:
    run_instead(LYING, answers="1", lie='say({"error": "no \x1b[2J model", "fix": "\x07"})')
    assert refusal() == "no \ufffd[2J model\n  fix: \ufffd"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux confines a process")
def test_a_process_that_a_model_has_taken_over_reaches_no_file_no_network_and_not_the_job(
    run_instead: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempts = {
            "token": f"open({str(secret)!r}).read()",
            "variables": "open(f'/proc/{os.getppid()}/environ').read()",
            "memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
            "temporary": "open('/tmp/taken', 'w')",
            "shared memory": "open('/dev/shm/taken', 'w')",
            "here": "open('taken', 'w')",
            "connection": f"__import__('socket').create_connection(('127.0.0.1', {server.getsockname()[1]}))",
            "signal": "os.kill(os.getppid(), 0)",
        }
        tried = "".join(
            f"try:\n    found[{name!r}] = repr({code})\nexcept OSError as error:\n    found[{name!r}] = 'refused'\n"
            for name, code in attempts.items()
        )
        answer = "model_worker.answer_job(answers, {'failed': json.dumps(found)})"
        run_instead(TAKEN_OVER, lie=f"found = {{'environ': sorted(os.environ.values())}}\n{tried}{answer}")
        with pytest.raises(FailedRowsError) as caught:
            ask(predict)
    found = json.loads(str(caught.value))
    assert "secret" not in found.pop("environ")
    signalled = found.pop("signal")
    assert set(found.values()) == {"refused"}
    assert signalled in ("refused", "None"), "Landlock refuses signals from version 6 on"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux confines a process")
def test_a_kernel_that_cannot_confine_the_process_is_an_error_except_for_experiments(
    run_instead: Callable[..., None],
) -> None:
    code = """
        import sys
        from pipelines.declarations.errors import MlopsError
        from pipelines.training import model_worker

        def confine(*_):
            raise MlopsError("no Landlock", fix="use another node")

        model_worker.confine = confine
        model_worker.main(int(sys.argv[1]))
    """
    run_instead(code)
    assert refusal() == "no Landlock\n  fix: use another node"
    with open_model(linear([2.0, -1.0]).SerializeToString(), "loans", "", must_confine=False) as opened:
        assert predict(opened.load(INPUTS, OUTPUTS))[0].tolist() == [[1.0], [6.0], [-1.0]]


def test_what_the_process_prints_is_discarded(
    run_instead: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    """A row that a model prints would be in the log of the job."""
    run_instead(LYING, answers="2", lie="print('77665544'); print('77665544', file=sys.stderr); say({'failed': 'x'})")
    with pytest.raises(FailedRowsError):
        ask(predict)
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_the_block() -> None:
    with open_model(linear([1.0, 1.0]).SerializeToString(), "loans", "training.resources.memory") as opened:
        opened.check()
        process = opened._process._process
        assert process.poll() is None
    assert process.poll() is not None
