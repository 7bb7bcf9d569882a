"""Nothing phones home: no step of ingestion, training, serving or the command line leaves this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from pipelines.startup import QUIET
from tests.network_isolation import isolated, leaving, why_not_isolated
from tests.network_journey import HOME, LOG
from tests.sample_project import ROOT

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Journey:
    """What a run of `network_journey` did.

    Attributes:
        python: what its Python code asked of the network outside this machine.
        native: system calls to addresses or resolvers outside this machine; None if they could not be traced.
        home: names in the home directory of its processes.
    """

    python: list[str]
    native: list[str] | None
    home: list[str]


def travel(folder: Path, **environ: str) -> Journey:
    """Run the journey, traced if this machine permits it."""
    trace = folder / "trace"
    command = [sys.executable, "-m", "tests.network_journey", str(folder)]
    traced = not why_not_isolated()
    done = subprocess.run(
        isolated(trace, *command) if traced else command,
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    python = (folder / LOG).read_text().splitlines() if (folder / LOG).exists() else []
    native = leaving(trace.read_text(errors="replace").splitlines()) if traced else None
    home = sorted(str(path.relative_to(folder / HOME)) for path in (folder / HOME).rglob("*"))
    return Journey(python, native, home)


@pytest.mark.timeout(600)
def test_no_step_asks_other_machines_or_keeps_anything_about_this_one(tmp_path: Path) -> None:
    """onnxruntime, for example, keeps a device id and a store of events in the home directory, and reports them."""
    journey = travel(tmp_path)
    assert journey.python == []
    assert journey.home == []
    if journey.native is None:
        pytest.skip(why_not_isolated())
    assert journey.native == []


# The checks find what they look for


def run_isolated(folder: Path, program: str, **environ: str) -> list[str]:
    """Run a Python program isolated and traced, and return what leaves this machine."""
    if why_not_isolated():
        pytest.skip(why_not_isolated())
    trace = folder / "trace"
    passed = {name: value for name, value in os.environ.items() if name not in QUIET}
    subprocess.run(
        isolated(trace, sys.executable, "-c", program), env={**passed, **environ}, check=False, capture_output=True
    )
    return leaving(trace.read_text(errors="replace").splitlines())


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('192.0.2.1', 443), 1)",
        "import socket; socket.create_connection(('2001:db8::1', 443), 1)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 8125))",
        "import subprocess; subprocess.run(['getent', 'hosts', 'collector.example'])",
    ],
)
def test_a_connection_and_a_look_up_are_found(tmp_path: Path, program: str) -> None:
    assert run_isolated(tmp_path, program)


def test_a_connection_on_this_machine_is_not_reported(tmp_path: Path) -> None:
    program = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert run_isolated(tmp_path, program) == []


@pytest.mark.parametrize("call", ["socket.getaddrinfo('collector.example', 443)", "urlopen('http://192.0.2.1')"])
def test_a_call_of_python_code_is_found(tmp_path: Path, call: str) -> None:
    (tmp_path / "reporting.py").write_text(
        f"import socket\nfrom urllib.request import urlopen\nsocket.setdefaulttimeout(0.01)\ntry:\n    {call}\n"
        "except OSError:\n    pass\n"
    )
    subprocess.run(
        [sys.executable, "-m", "tests.network_watch", str(tmp_path / "log"), "reporting"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))},
        check=True,
    )
    assert (tmp_path / "log").read_text()


def test_the_runtime_turns_telemetry_off_before_it_imports_onnxruntime() -> None:
    """onnxruntime decides at its import, so the variable must be there when the import begins."""
    program = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"), file=sys.stderr)
sys.meta_path.insert(0, Watch())
import pipelines.serving.runtime
"""
    environ = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    run = subprocess.run([sys.executable, "-c", program], env=environ, cwd=ROOT, check=True, stderr=subprocess.PIPE)
    assert run.stderr.decode().split() == ["1"]


def test_the_command_line_turns_off_the_reports_of_its_tools() -> None:
    from pipelines.cli.main import main

    others = {name: value for name, value in os.environ.items() if name not in QUIET}
    with mock.patch.dict(os.environ, {**others, "GH_TELEMETRY": "true"}, clear=True):
        main(["--version"])
        assert {name: os.environ.get(name) for name in QUIET} == {**QUIET, "GH_TELEMETRY": "true"}
