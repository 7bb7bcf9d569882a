"""Run a command and measure what it takes: time, CPU time of its process tree, and peak memory.

A small process starts the command: on Linux, the peak memory of a process includes that of the one which started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.errors import MlopsError

LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, peak], file)
"""


@dataclass(frozen=True)
class ResourceUsage:
    """What a process took, with the processes that it started and waited for.

    Attributes:
        seconds: from its start to its end.
        cpu: CPU seconds.
        peak: greatest resident memory of one of them, in bytes.
        output: what it wrote to its standard output.
    """

    seconds: float
    cpu: float
    peak: int
    output: str


def run_measured(
    command: Sequence[str], environ: Mapping[str, str] | None = None, folder: Path | None = None, success: int = 0
) -> ResourceUsage:
    """Run a command.

    Args:
        command: the command.
        environ: environment variables to add.
        folder: where to run it; the current folder by default.
        success: the exit code that it must have.

    Raises:
        MlopsError: it ends with another exit code.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "used.json"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(result), *command],
            env={**os.environ, **(environ or {})},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        code, seconds, cpu, peak = json.loads(result.read_text()) if result.is_file() else (None, 0.0, 0.0, 0)
    if code != success:
        raise MlopsError(
            f"{' '.join(command[:4])} …: expected exit code {success}, found {code}: {done.stderr[-2000:]}"
        )
    return ResourceUsage(seconds, cpu, peak, done.stdout)
