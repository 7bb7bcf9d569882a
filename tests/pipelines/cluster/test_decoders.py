"""Threads decode answers of the Kubernetes API at the same time, also for the first time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sample_project import ROOT

PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from lightkube.core.decoders import decode_list, decode_status
from lightkube.resources.core_v1 import Pod
from pipelines.cluster.decoders import make_decoders

barrier = threading.Barrier(8)

def decode():
    barrier.wait()
    MAKE
    decode_status(b'{"metadata": {}, "details": {"causes": [{"field": "a"}]}}')
    decode_list(b'{"items": [{"metadata": {}, "spec": {"containers": []}}], "metadata": {}}', Pod)

threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("decoded")
"""


def run(make: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.replace("MAKE", make)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_threads_that_need_a_decoder_first_do_not_end_the_process() -> None:
    """Without `make_decoders`, the programs end with a segmentation fault."""
    for _ in range(10):
        done = run("make_decoders()")
        assert (done.returncode, done.stdout, done.stderr) == (0, "decoded\n", "")
