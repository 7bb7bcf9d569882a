"""Commands that may finish when this process is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.targets.child_process import run_child

ROOT = Path(__file__).parents[3]

PARENT = """
import signal, sys
from pathlib import Path
from pipelines.targets.child_process import run_child
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
try:
    run_child([sys.executable, "-c", sys.argv[1]], folder=Path.cwd(), environ=None, output=None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
CHILD = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
time.sleep(0.5)  # longer than `subprocess.run` waits before it kills
print("finished after", len(got), "signal", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_an_interrupted_command_gets_one_signal_and_finishes(number: signal.Signals, to_group: bool) -> None:
    """A terminal signals the whole process group; GitHub and a supervisor signal one process."""
    command = [sys.executable, "-c", PARENT, CHILD]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, process_group=0) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        if to_group:
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
        assert parent.stdout.read() == "finished after 1 signal\ninterrupted\n"


def test_the_exit_status_is_returned() -> None:
    assert run_child([sys.executable, "-c", "exit(3)"], folder=ROOT, environ=None, output=None) == 3


def test_a_missing_command_is_an_error() -> None:
    with pytest.raises(MlopsError, match="`no-such-command` is not on the PATH"):
        run_child(["no-such-command"], folder=ROOT, environ=None, output=None)
