"""Identity of processes, and the end of those that a job left behind."""

from __future__ import annotations

import os
import subprocess
import sys

from laptop.github.process_tracking import TRACKING, identity, is_alive, kill_tracked
from laptop.tests.github.sample_repository import ends


def test_a_process_is_alive_until_it_ends_even_if_it_is_never_reaped() -> None:
    assert is_alive(identity(os.getpid()))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = identity(process.pid)
    assert is_alive(known)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(known), "a zombie has ended"
    assert not is_alive(identity(process.pid))
    process.communicate()
    assert not is_alive(known)


def test_another_process_with_the_same_pid_is_not_the_same_process() -> None:
    pid, started = identity(os.getpid()).split(":")
    assert not is_alive(f"{pid}:{float(started) - 60}")


def test_only_processes_with_the_tracking_id_are_killed() -> None:
    tracked, other = (
        subprocess.Popen(["sleep", "60"], env={**os.environ, TRACKING: name}) for name in ("run1.job.", "run2.job.")
    )
    try:
        kill_tracked("run1.")
        assert ends(str(tracked.pid))
        assert is_alive(identity(other.pid))
    finally:
        for process in (tracked, other):
            process.kill()
            process.wait()
