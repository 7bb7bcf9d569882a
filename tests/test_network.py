"""Nothing phones home: no step of ingestion, training, serving or the command line leaves this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from pipelines.startup import QUIET
from tests.network_journey import HOME, LOG
from tests.network_watch import is_local
from tests.sample_project import ROOT

pytestmark = pytest.mark.slow

# In a network namespace with nothing but a loopback interface, which is down at first. Native code is seen there, too.
_ISOLATED = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
    fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS
os.execvp(sys.argv[1], sys.argv[1:])
"""
_TRACED = "connect,sendto,sendmsg,sendmmsg"
_IPV4 = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)')
_IPV6 = re.compile(r'sin6_port=htons\((\d+)\),.*?inet_pton\(AF_INET6, "([^"]+)"')
_NAME_SERVICE = 53
_RESOLVER = re.compile(r'sun_path="[^"]*systemd/resolve')


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


@functools.cache
def why_not_isolated() -> str:
    """Return why this machine cannot trace system calls in a network namespace, or ""."""
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    done = subprocess.run(
        isolated(os.devnull, sys.executable, "-c", ""), capture_output=True, text=True, check=False, timeout=60
    )
    return f"a traced network namespace is not permitted: {done.stderr.strip()[:200]}" if done.returncode else ""


def isolated(log: str | Path, *command: str) -> list[str]:
    """Return a command that runs another one without a network and traces its system calls."""
    tracing = ["strace", "-f", "-qq", "-e", "signal=none", "-e", f"trace={_TRACED}", "-o", str(log), *command]
    return ["unshare", "-rn", sys.executable, "-c", _ISOLATED, *tracing]


def leaving(lines: list[str]) -> list[str]:
    """Return the traced system calls that look up a name or leave this machine."""
    found = []
    for line in lines:
        addresses = [match for pattern in (_IPV4, _IPV6) for match in pattern.findall(line)]
        far = any(not is_local(host) or int(port) == _NAME_SERVICE for port, host in addresses)
        if far or _RESOLVER.search(line):
            found.append(line)
    return found


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


def test_onnxruntime_keeps_a_device_id_unless_its_telemetry_is_off(tmp_path: Path) -> None:
    """If this fails, onnxruntime no longer reports, or leaves other traces: review what the tests above look for."""
    for name, value in (("on", None), ("off", "1")):
        home = tmp_path / name
        home.mkdir()
        environ = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
        environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)} | (
            {"ORT_DISABLE_TELEMETRY": value} if value else {}
        )
        subprocess.run([sys.executable, "-c", "import onnxruntime"], env=environ, check=True)
        assert any(home.rglob("deviceid")) is (value is None)


def test_the_runtime_turns_telemetry_off_before_it_imports_onnxruntime(tmp_path: Path) -> None:
    environ = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    program = "import pipelines.serving.runtime"
    subprocess.run([sys.executable, "-c", program], env={**environ, "HOME": str(tmp_path)}, cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_turns_off_the_reports_of_its_tools() -> None:
    from pipelines.cli.main import main

    others = {name: value for name, value in os.environ.items() if name not in QUIET}
    with mock.patch.dict(os.environ, {**others, "GH_TELEMETRY": "true"}, clear=True):
        main(["--version"])
        assert {name: os.environ.get(name) for name in QUIET} == {**QUIET, "GH_TELEMETRY": "true"}
