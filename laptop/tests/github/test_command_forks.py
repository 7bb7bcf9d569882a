"""Commands of workflow steps run in forks, and behave as if Python had started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from laptop.github.command_forks import SOCKET, CommandForks
from tests.sample_project import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux"),
]

SCRIPT = """\
import json, os, sys
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("WORD"), "input": sys.stdin.read(),
    "forked": os.environ["SERVER_LIBRARY"] in sys.modules, "here": sys.path[0], "name": __name__,
}))
print("to stderr", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[CommandForks]:
    started = CommandForks()
    started.start({"LANG": "C.UTF-8"})
    deadline = time.monotonic() + 60
    while not Path(started.environment[SOCKET]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield started
    started.close()


def environment(forks: CommandForks, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SERVER_LIBRARY": "pulumi_aws", **forks.environment, **more}


def script(folder: Path, content: str) -> Path:
    path = folder / "mlops"
    path.write_text(content)
    return path


def wait_until_ready(forks: CommandForks, folder: Path) -> None:
    """Wait until the server has imported its libraries and serves."""
    probe = script(folder, "import sys; sys.exit('pulumi_aws' not in sys.modules)")
    deadline = time.monotonic() + 60
    while subprocess.run([sys.executable, str(probe)], env=environment(forks), check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_command_gets_its_arguments_streams_variables_and_folder_and_returns_its_exit_code(
    forks: CommandForks, tmp_path: Path
) -> None:
    import json

    wait_until_ready(forks, tmp_path)
    program = script(tmp_path, SCRIPT)
    done = subprocess.run(
        [sys.executable, str(program), "7", "two words"],
        env=environment(forks, WORD="so"),
        cwd=tmp_path,
        input="given",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr == "to stderr\n"
    assert json.loads(done.stdout) == {
        "arguments": ["7", "two words"],
        "folder": str(tmp_path),
        "variable": "so",
        "input": "given",
        "forked": True,
        "here": str(tmp_path),
        "name": "__main__",
    }


@pytest.mark.parametrize(
    ("name", "variables"),
    [("other", {}), ("mlops", {"PYTHONHASHSEED": "3"}), ("mlops", {"OPENBLAS_NUM_THREADS": "2"})],
)
def test_other_programs_and_settings_that_python_reads_at_its_start_are_not_forked(
    forks: CommandForks, tmp_path: Path, name: str, variables: dict[str, str]
) -> None:
    wait_until_ready(forks, tmp_path)
    program = tmp_path / name
    program.write_text("import sys; sys.exit('pulumi_aws' in sys.modules)")
    assert (
        subprocess.run([sys.executable, str(program)], env=environment(forks, **variables), check=False).returncode == 0
    )


def test_a_signal_reaches_the_command_and_its_end_by_a_signal_is_seen(forks: CommandForks, tmp_path: Path) -> None:
    wait_until_ready(forks, tmp_path)
    program = script(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, str(program)], env=environment(forks), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_a_command_dies_with_the_process_that_a_step_started(forks: CommandForks, tmp_path: Path) -> None:
    wait_until_ready(forks, tmp_path)
    program = script(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, str(program)], env=environment(forks), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        forked = int(process.stdout.readline())
        assert forked != process.pid
        process.kill()
        process.wait(10)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{forked}").exists():
        assert time.monotonic() < deadline, "the fork still runs"
        time.sleep(0.02)


def test_a_command_starts_as_usual_when_the_server_is_gone(tmp_path: Path) -> None:
    gone = CommandForks()
    gone.start({"LANG": "C.UTF-8"})
    variables = gone.environment
    gone.close()
    program = script(tmp_path, "print('ran')")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


@pytest.mark.parametrize("is_found", [True, False], ids=["in a workflow", "in a terminal"])
def test_the_types_of_what_a_workflow_adds_to_python_are_right_wherever_they_are_checked(
    tmp_path: Path, is_found: bool
) -> None:
    """In a workflow, the folder is on Python's path, and mypy finds the modules in it."""
    site = ROOT / "laptop" / "github" / "command_forks" / "site"
    path = [str(site)] if is_found else []
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            f"--cache-dir={tmp_path}",
            site / "sitecustomize.py",
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
