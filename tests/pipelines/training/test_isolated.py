"""A hostile training function reaches neither the holdout, nor credentials, nor the job that runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.training.isolated import train_isolated
from pipelines.training.sent_rows import SentRows, SentShape, receive_rows
from tests.pipelines.training.project import DECLARATION, MODEL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux confines a process"),
]

ROOT = Path(__file__).parents[3]
SECRET = "a-secret-that-only-the-job-has"

TRY = """
    import json, os
    from pipelines.training import TrainedModel

    def train(data):
        found = {}

        def attempt(name, reach):
            try:
                found[name] = repr(reach())
            except BaseException as error:
                found[name] = type(error).__name__

        parent = os.getppid()
        attacks(attempt, data, parent)
        print("FOUND " + json.dumps(found))
        return TrainedModel(lambda rows: [0.0] * len(rows), b"model")
"""


@pytest.fixture(scope="module")
def data() -> SentRows:
    rng = np.random.default_rng(0)
    blocks = [([rng.random(rows)], rng.random(rows)) for rows in (12, 8)]
    return SentRows(SentShape(20, ("age",), "income", {"slope": 2.0}, 3), lambda: blocks)


def model() -> Model:
    return Model.model_validate_json(json.dumps(DECLARATION))


def found_by(folder: Path, attacks: str, data: SentRows) -> dict[str, str]:
    """Train with a function that tries attacks; return what each found, or the name of its error."""
    (folder / "train.py").write_text(textwrap.dedent(TRY) + "\n\ndef attacks(attempt, data, parent):\n" + attacks)
    lines: list[str] = []
    with train_isolated(model(), folder, data, lines.append) as trained:
        assert trained.onnx == b"model"
    (line,) = [line for line in lines if line.startswith("FOUND ")]
    found: dict[str, str] = json.loads(line.removeprefix("FOUND "))
    return found


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_process_with_a_second_thread_is_not_confined() -> None:
    """The second thread would keep its rights, and code that took over the first one could use it."""
    code = """
import threading
from pipelines.training.isolation import confine
release = threading.Event()
thread = threading.Thread(target=release.wait)
thread.start()
try:
    confine([], [])
except RuntimeError as error:
    print(error)
finally:
    release.set()
"""
    assert run_python(code) == "expected one thread in the process to confine, found 2\n"


@pytest.mark.parametrize(
    "module",
    [
        "pipelines.training.worker",
        "pipelines.training.model_worker",
        "pipelines.training.isolation",
        "pipelines.promotion.trial_process",
        "pipelines.promotion.image_trial_process",
    ],
)
def test_a_process_that_confines_itself_has_not_imported_numpy_which_starts_threads(module: str) -> None:
    assert run_python(f"import sys, {module}; print('numpy' in sys.modules)") == "False\n"


def attacks(**expressions: str) -> str:
    return "".join(f"    attempt({name!r}, lambda: {text})\n" for name, text in expressions.items())


REFUSED = {"PermissionError", "OSError"}


def test_the_environment_holds_no_variable_of_the_job(
    tmp_path: Path, data: SentRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "MLOPS_ENVIRONMENT", "GH_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    found = found_by(
        tmp_path,
        attacks(
            variables="sorted(os.environ)",
            values="sorted(os.environ.values())",
            own="open('/proc/self/environ').read()",
            parents="open(f'/proc/{parent}/environ').read()",
            command="open(f'/proc/{parent}/cmdline').read()",
        ),
        data,
    )
    assert not any(SECRET in value for value in found.values())
    assert not any(name in found["variables"] for name in ("AWS_", "MLOPS_", "GH_"))
    assert found["parents"] == found["command"] == "PermissionError"


def test_no_file_but_code_can_be_read_and_none_outside_scratch_written(tmp_path: Path, data: SentRows) -> None:
    model_folder, outside = tmp_path / "models" / MODEL, tmp_path / "outside"
    model_folder.mkdir(parents=True)
    outside.mkdir()
    token = outside / "eks-pod-identity-token"
    token.write_text(SECRET)
    (model_folder / "link").symlink_to(token)
    found = found_by(
        model_folder,
        "    import subprocess, sys, ctypes\n"
        + attacks(
            token=f"open({str(token)!r}).read()",
            linked=f"open({str(model_folder / 'link')!r}).read()",
            around=f"open('/proc/self/root{token}').read()",
            hard=f"(os.link({str(token)!r}, 'copy'), open('copy').read())",
            in_another_program=f"subprocess.run(['cat', {str(token)!r}], capture_output=True, check=False).stdout",
            listing=f"os.listdir({str(outside)!r})",
            temporary="os.listdir('/tmp')",
            mounted="os.listdir('/var/run/secrets')",
            home="os.listdir(os.path.expanduser('~root'))",
            shadow="open('/etc/shadow').read()",
            write_code=f"open({str(model_folder / 'train.py')!r}, 'a')",
            write_package="open(__import__('pipelines').__path__[0] + '/new.py', 'w')",
            write_outside=f"open({str(outside / 'new')!r}, 'w')",
            scratch="open('mine', 'w').write('x')",
            semaphore="__import__('multiprocessing').Semaphore().acquire()",
        ),
        data,
    )
    assert found.pop("scratch") == "1"
    assert found.pop("semaphore") == "True", "libraries that use several processes need it"
    assert found.pop("in_another_program") == "b''"
    assert not any(SECRET in value for value in found.values())
    # Some of these do not exist on some machines.
    assert {name: error for name, error in found.items() if error not in {*REFUSED, "FileNotFoundError"}} == {}
    assert {found[name] for name in ("token", "linked", "listing", "write_code", "write_outside")} == {
        "PermissionError"
    }


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_no_address_can_be_reached(tmp_path: Path, data: SentRows, listening: int) -> None:
    """The addresses of Pod Identity and of instance metadata are as any other: there are no sockets."""
    found = found_by(
        tmp_path,
        "    import socket, ctypes, urllib.request, subprocess, sys\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    def call(*numbers):\n"
        "        if libc.syscall(*numbers) < 0:\n"
        "            raise OSError(ctypes.get_errno(), 'failed')\n"
        + attacks(
            tcp=f"socket.create_connection(('127.0.0.1', {listening}), timeout=2)",
            pod_identity="urllib.request.urlopen('http://169.254.170.23/v1/credentials', timeout=2)",
            metadata="urllib.request.urlopen('http://169.254.169.254/latest/meta-data/', timeout=2)",
            udp="socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            unix="socket.socket(socket.AF_UNIX)",
            system_call="call(41 if os.uname().machine == 'x86_64' else 198, 2, 1, 0)",
            ring="call(425, 1, None)",
            other_program=f"""subprocess.run(
                [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', {listening}))"],
                capture_output=True, check=True)""",
            signing="__import__('boto3').client('kms', 'eu-west-1').list_keys()",
        ),
        data,
    )
    assert found.pop("signing") in ("NoCredentialsError", "EndpointConnectionError")
    assert found.pop("other_program") == "CalledProcessError"
    assert {name: error for name, error in found.items() if error not in {*REFUSED, "URLError"}} == {}


def test_the_job_cannot_be_inspected_or_signalled(tmp_path: Path, data: SentRows) -> None:
    read, write = os.pipe()  # a file of the job that no child may have
    os.set_inheritable(write, True)
    try:
        found = found_by(
            tmp_path,
            "    import ctypes, resource\n"
            "    libc = ctypes.CDLL(None, use_errno=True)\n"
            "    def call(*numbers):\n"
            "        if libc.syscall(*numbers) < 0:\n"
            "            raise OSError(ctypes.get_errno(), 'failed')\n"
            "    x86 = os.uname().machine == 'x86_64'\n"
            + attacks(
                memory="open(f'/proc/{parent}/mem', 'rb')",
                maps="open(f'/proc/{parent}/maps').read()",
                files="os.listdir(f'/proc/{parent}/fd')",
                taken="os.readlink(f'/proc/{parent}/fd/0')",
                trace="call(101 if x86 else 117, 16, parent, 0, 0)",
                copied="call(310 if x86 else 270, parent, None, 0, None, 0, 0)",
                handle="os.pidfd_open(parent)",
                limit="resource.prlimit(parent, resource.RLIMIT_CORE)",
                own_limit="resource.getrlimit(resource.RLIMIT_CORE)[0]",
                own_files="sorted(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3')",
            )
            + f"    attempt('inherited', lambda: os.write({write}, b'x'))\n",
            data,
        )
    finally:
        os.close(read)
        os.close(write)
    assert "pipe" in found.pop("own_files")
    assert found.pop("own_limit").lstrip("-").isdigit()
    assert found.pop("inherited") == "OSError"
    assert {name: error for name, error in found.items() if error not in REFUSED} == {}


def test_frames_and_objects_hold_the_training_rows_only(tmp_path: Path, data: SentRows) -> None:
    found = found_by(
        tmp_path,
        "    import gc, sys\n"
        "    import pandas as pd\n"
        "    def frames():\n"
        "        frame = sys._getframe()\n"
        "        while frame is not None:\n"
        "            yield from frame.f_locals.values()\n"
        "            frame = frame.f_back\n"
        + attacks(
            names="sorted({type(each).__name__ for each in (*frames(), *gc.get_objects())} & "
            "{'TrainingSet', 'HoldoutRows', 'Holdout'})",
            rows="sorted({len(each) for each in (*frames(), *gc.get_objects()) if isinstance(each, pd.DataFrame)})",
        ),
        data,
    )
    assert found == {"names": "[]", "rows": "[20]"}


def test_the_features_of_the_holdout_are_sent_once_the_model_is_there(tmp_path: Path, data: SentRows) -> None:
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""
            import sys, select
            from pipelines.training import TrainedModel

            def train(data):
                waiting, _, _ = select.select([sys.stdin], [], [], 0.2)
                print("waiting:", waiting)
                return TrainedModel(lambda rows: rows["age"] * 2, b"the model")
        """)
    )
    lines: list[str] = []
    with train_isolated(model(), tmp_path, data, lines.append) as trained:
        assert trained.onnx == b"the model"
        assert trained.predict(pd.DataFrame({"age": [1.0, 2.5]})).tolist() == [2.0, 5.0]
        assert trained.predict(pd.DataFrame({"age": [7.0]})).tolist() == [14.0]
    assert lines == ["waiting: []"]


def fails_with(folder: Path, train: str, data: SentRows, then: Callable[[Any], object] = lambda trained: None) -> str:
    (folder / "train.py").write_text(textwrap.dedent(train))
    with pytest.raises(MlopsError) as raised, ExitStack() as stack:
        then(stack.enter_context(train_isolated(model(), folder, data, lambda line: None)))
    assert "Traceback" not in str(raised.value)
    return str(raised.value)


def test_an_exception_is_told_with_the_lines_of_the_model(tmp_path: Path, data: SentRows) -> None:
    message = fails_with(tmp_path, "def train(data):\n    return data.features['nothing']\n", data)
    assert message.startswith("train:train of loan-default failed: KeyError: 'nothing'")
    assert f"at {tmp_path}/train.py:2: return data.features['nothing']" in message


def test_a_mistake_in_the_text_of_the_code_is_told(tmp_path: Path, data: SentRows) -> None:
    message = fails_with(tmp_path, "def train(data)\n    return 1\n", data)
    assert message.startswith("train:train of loan-default failed: SyntaxError: expected ':' (train.py, line 1)")


@pytest.mark.parametrize("code", ["import nosuchlib", "from nosuchlib.ensemble import Trees"])
def test_a_library_that_is_not_installed_is_told_with_the_way_to_add_it(
    tmp_path: Path, data: SentRows, code: str
) -> None:
    message = fails_with(tmp_path, f"{code}\n\ndef train(data):\n    return 1\n", data)
    assert "add the library of nosuchlib to requirements/pipelines.in, then run make lock and make setup" in message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\n\ndef train(data):\n    os._exit(3)\n", "ended with exit code 3 before it had a model"),
        (
            "import os\n\ndef train(data):\n    os.kill(os.getpid(), 9)\n",
            "was ended by the signal SIGKILL\n  fix: raise training.resources.memory",
        ),
        ("import os\n\ndef train(data):\n    os.kill(os.getpid(), 40)\n", "was ended by the signal 40"),
        ("def train(data):\n    raise SystemExit(4)\n", "failed: SystemExit: 4"),
    ],
)
def test_the_end_of_the_process_is_told(tmp_path: Path, data: SentRows, code: str, expected: str) -> None:
    assert expected in fails_with(tmp_path, code, data)


def test_other_content_on_the_channel_is_refused(tmp_path: Path, data: SentRows) -> None:
    code = """
        import os, sys

        def train(data):
            os.write(int(sys.argv[1]), b"{}[]\\n")
            os._exit(0)
    """
    assert "found something else on the channel to the job" in fails_with(tmp_path, code, data)


@pytest.mark.parametrize("answer", ['{"size": 16, "shape": [3]}', '{"size": 15, "shape": [2]}', '{"shape": [%s]}'])
def test_predictions_of_another_size_are_refused(tmp_path: Path, data: SentRows, answer: str) -> None:
    """Two numbers whose product is 0 in 64 bits are not a shape of nothing."""
    code = f"""
        import os, sys
        from pipelines.training import TrainedModel

        def predict(rows):
            os.write(int(sys.argv[1]), {(answer.replace("%s", f"{2**32}, {2**32}") + chr(10)).encode()!r} + bytes(16))
            os._exit(0)

        def train(data):
            return TrainedModel(predict, b"model")
    """
    message = fails_with(
        tmp_path, code, data, lambda trained: trained.predict(receive_rows(data.shape, data.blocks()).features)
    )
    assert "predict() returned" in message


def test_a_failure_of_predict_is_told(tmp_path: Path, data: SentRows) -> None:
    code = """
        from pipelines.training import TrainedModel

        def train(data):
            return TrainedModel(lambda rows: rows["missing"], b"model")
    """
    message = fails_with(
        tmp_path, code, data, lambda trained: trained.predict(receive_rows(data.shape, data.blocks()).features)
    )
    assert message.startswith("train:train of loan-default failed: KeyError: 'missing'")


def test_processes_that_training_starts_end_with_it(tmp_path: Path, data: SentRows) -> None:
    found = found_by(
        tmp_path,
        "    import subprocess\n"
        + attacks(
            started="subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3).pid",
            left="subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3, start_new_session=True).pid",
            group="subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3, process_group=0).pid",
        ),
        data,
    )
    assert found["left"] == "PermissionError", "a process in a session or group of its own would go on"
    assert found["group"] == "PermissionError"
    started = int(found["started"])
    status = Path(f"/proc/{started}/stat")
    # It is dead, or waits for its new parent to collect it.
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
