"""A forked container behaves like one that was started as a new process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.cluster import fork_server
from laptop.cluster.fork_client import module_of
from laptop.cluster.kinds import JOB, POD
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, ending, job, wait_for

pytestmark = pytest.mark.slow

FACTS = """
import atexit, json, os, resource, signal, sys, threading
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": __file__, "package": __package__,
    "main": sorted(vars(sys.modules["__main__"])), "cwd": os.getcwd(), "environ": dict(os.environ),
    "leads": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
    "stdin": sys.stdin.read(), "unbuffered": sys.stdout.write_through, "isatty": sys.stdout.isatty(),
    "handlers": [str(signal.getsignal(number)) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)],
    "threads": threading.active_count(), "tasks": len(os.listdir("/proc/self/task")), "umask": os.umask(0o22),
    "handles": sorted(os.listdir("/proc/self/fd"))[:-1], "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
    "project": sorted(name for name in sys.modules if name.split(".")[0] in ("pipelines", "infra", "laptop", "models")),
}))
"""
EXEC = {"env": [{"name": "MALLOC_ARENA_MAX", "value": "2"}]}
"""A variable that is read when a process starts, so that the container is not forked."""
MODULES = {
    "facts": FACTS,
    "fork_server": "print('the module of the image')",
    "fails": "import pandas\n1 / 0",
    "exits": "import sys; sys.exit(3)",
    "says": "import sys; sys.exit('why')",
    "kills": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "leaves": "import atexit, threading, time\natexit.register(print, 'at exit')\n"
    "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
    "chance": "import random, numpy, uuid; print(random.random(), numpy.random.random(), uuid.uuid4())",
    "unflushed": "import os\nfile = open(os.environ['HOME'] + '/file', 'w')\nfile.write('kept')",
    "leaks": "import boto3, pandas, duckdb\nclass Last:\n    def __del__(self): print('deleted')\nlast = Last()",
    "slow": "import os, subprocess, time\nprint(os.getpid(), subprocess.Popen(['sleep', '60']).pid)\ntime.sleep(60)",
}


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    cluster = RunningCluster(tmp_path_factory.mktemp("forking"), time_scale=0.1, fork_server=True)
    for name, code in MODULES.items():
        (cluster.root / f"{name}.py").write_text(code)
    yield cluster
    cluster.close()


def run(cluster: RunningCluster, module: str, *arguments: str, **container: Any) -> tuple[int, str]:
    """Run a module in a pod, and return its exit code and log."""
    name = f"{module.replace('_', '-')}-{os.urandom(3).hex()}"
    main = {"command": ["python", "-m", module, *arguments], **container}
    manifest = job(name, "", pod={"container": main, "automountServiceAccountToken": False})
    cluster.create(JOB, "default", manifest)
    wait_for(lambda: ending(cluster.get(JOB, "default", name)), 60)
    (pod,) = cluster.pods_of("default", name)
    code: int = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code, cluster.log("default", pod["metadata"]["name"])


def was_forked(cluster: RunningCluster, pid: int) -> bool:
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return b"cluster/fork_server.py" in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_a_fork_has_the_state_of_a_new_interpreter(forking: RunningCluster) -> None:
    forked, started = (json.loads(run(forking, "facts", "one", "--two", **how)[1]) for how in ({}, EXEC))
    for facts in (forked, started):
        for name in ("HOME", "TMPDIR", "HOSTNAME", "MALLOC_ARENA_MAX"):
            facts["environ"].pop(name, None)
    assert forked == started
    assert forked["project"] == []


def test_a_module_of_the_image_takes_precedence_over_others_with_its_name(forking: RunningCluster) -> None:
    assert run(forking, "fork_server") == (0, "the module of the image\n")


@pytest.mark.parametrize("module", ["fails", "exits", "says", "kills", "leaves", "leaks", "no_such_module"])
def test_a_fork_ends_as_a_new_process_does(forking: RunningCluster, module: str) -> None:
    forked, started = run(forking, module), run(forking, module, **EXEC)
    assert forked[0] == started[0]
    assert forked[1].splitlines()[-1:] == started[1].splitlines()[-1:]


def test_a_file_that_a_fork_leaves_open_is_flushed(forking: RunningCluster) -> None:
    assert run(forking, "unflushed") == (0, "")
    (file,) = forking.home.glob("cluster/pods-*/default_unflushed-*/file")
    assert file.read_text() == "kept"


def test_forks_share_no_random_numbers(forking: RunningCluster) -> None:
    first, second = run(forking, "chance")[1].split(), run(forking, "chance")[1].split()
    assert not set(first) & set(second)


def test_a_fork_is_terminated_with_its_children(forking: RunningCluster) -> None:
    container = {"name": "main", "image": IMAGE, "command": ["python", "-m", "slow"]}
    pod = {"metadata": {"name": "slow"}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    forking.create(POD, "default", pod)
    forking.wait(POD, "default", "slow", lambda found: found["status"]["phase"] == "Running")
    pids = [int(word) for word in wait_for(lambda: forking.log("default", "slow")).split()]
    assert was_forked(forking, pids[0])
    forking.delete(POD, "default", "slow")
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_without_its_server_pods_end_and_later_ones_start_as_new_processes(tmp_path: Path) -> None:
    cluster = RunningCluster(tmp_path, time_scale=0.1, fork_server=True)
    try:
        for name, code in MODULES.items():
            (cluster.root / f"{name}.py").write_text(code)
        container = {"name": "main", "image": IMAGE, "command": ["python", "-m", "slow"]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        cluster.create(POD, "default", {"metadata": {"name": "slow"}, "spec": spec})
        cluster.wait(POD, "default", "slow", lambda found: found["status"]["phase"] == "Running", 60)
        pid = int(wait_for(lambda: cluster.log("default", "slow")).split()[0])
        assert was_forked(cluster, pid)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        ended = cluster.wait(POD, "default", "slow", lambda found: found["status"]["phase"] == "Failed")
        assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        assert run(cluster, "exits")[0] == 3
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("command", "environment", "module"),
    [
        (["python", "-m", "a.b", "x"], {}, "a.b"),
        (["python3", "-m", "a"], {"OMP_NUM_THREADS": "1"}, "a"),
        (["python", "-m", "a"], {"OMP_NUM_THREADS": "2"}, None),
        (["python", "-m", "a"], {"PYTHONHASHSEED": "1"}, None),
        (["python", "-m", "a"], {"PYTHONPATH": "/x"}, "a"),
        (["python", "-m", "a"], {"LC_ALL": "de_DE"}, None),
        (["python", "-I", "-m", "a"], {}, None),
        (["python", "-c", "a"], {}, None),
        (["sh", "-m", "a"], {}, None),
    ],
)
def test_only_python_modules_that_a_fork_can_run_are_forked(
    command: list[str], environment: dict[str, str], module: str | None
) -> None:
    path = str(Path(sys.executable).parent)
    assert module_of(command, {"PATH": f"{path}:/usr/bin:/bin", **environment}) == module


def test_preloaded_modules_start_no_thread() -> None:
    program = f"import runpy; m = runpy.run_path({fork_server.__file__!r}); m['preload'](); print(m['threads']())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=fork_server.ENVIRONMENT,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
