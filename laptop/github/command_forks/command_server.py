"""Process that forks for each Python command of a workflow step; see `laptop.github.command_forks`.

Run as a file: `command_server.py <socket> <file of laptop.cluster.fork_server>`. Ends when its standard input does.

A client connects to the socket and sends its standard streams as file descriptors, with the command as a line of JSON.
It may then send signal numbers, a byte each. The reply is a line: `no`, or the exit code of the fork, which is minus
the signal that ended it. A fork is killed when its client's connection ends.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import types
from typing import Any

PRELOADED = (
    *("click", "rich_click", "rich.console", "rich.table", "rich.live", "jsonschema", "filelock", "psutil"),
    *(
        "lightkube",
        "lightkube.generic_resource",
        "httpx2",
        "httpcore2",
        "anyio",
        "anyio.to_thread",
        "anyio.streams.tls",
    ),
    *("h11", "h2.connection", "kubernetes_validate", "importlib_resources.readers", "importlib_resources._adapters"),
    *("grpc", "google.protobuf.struct_pb2", "pulumi", "pulumi.runtime", "pulumi_aws", "pulumi_kubernetes"),
    *("pulumi_aws.s3:Bucket", "pulumi_aws.kms:Key", "pulumi_aws.iam:Role", "pulumi_aws.ecr:Repository"),
    *("pulumi_aws.glue:CatalogTable", "pulumi_aws.eks:PodIdentityAssociation", "pulumi_kubernetes.core.v1:Namespace"),
    *("pulumi_kubernetes.batch.v1:Job", "pulumi_kubernetes.networking.v1:Ingress", "pulumi_kubernetes.policy.v1"),
    *("pulumi_kubernetes.apiextensions:CustomResource", "pulumi_kubernetes.meta.v1:ObjectMetaArgs"),
)
"""Further modules of the command line's requirements; see `laptop.cluster.fork_server.PRELOADED`."""

_LARGEST_REQUEST = 1 << 20  # bytes


def main() -> None:
    """Serve until standard input ends."""
    forks = _load("fork_server", sys.argv[2])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    path = [entry for entry in sys.path[1:] if entry]  # without this file's folder
    sys.path[:] = path
    server = dict(os.environ)
    modules = forks.preload((*forks.SHARED, *PRELOADED))
    if forks.threads() != 1:
        sys.exit(f"{__file__}: a library has started a thread; commands start without forks")
    listener.listen(64)
    command = _serve(listener, forks, server)
    atexit.register(forks.skip_teardown, modules)  # registered first, it runs last
    forks.become_new(command["environment"], command["folder"])
    if os.environ.get("MLOPS_LAPTOP_NAMES"):
        names = os.path.join(os.path.dirname(__file__), "site", "laptop_names.py")  # noqa: PTH118, PTH120
        _load("laptop_names", names).install(os.environ["MLOPS_LAPTOP_NAMES"])
    _run(command["arguments"], path, forks)


def _load(name: str, file: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _serve(listener: socket.socket, forks: types.ModuleType, server: dict[str, str]) -> dict[str, Any]:
    """Serve requests. Returns only in a fork, with the command to run."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    waiting = select.poll()
    for handle in (0, wake_read, listener.fileno()):
        waiting.register(handle, select.POLLIN)
    clients: dict[int, socket.socket] = {}  # by file descriptor
    running: dict[int, int] = {}  # process id → file descriptor of its client

    def drop(handle: int) -> None:
        waiting.unregister(handle)
        clients.pop(handle).close()

    while True:
        for handle, _ in waiting.poll():
            if handle == 0:
                for pid in running:
                    _signal(pid, signal.SIGKILL)
                os._exit(0)
            elif handle == wake_read:
                os.read(wake_read, 4096)
                for pid, code in forks.reap():
                    client = running.pop(pid, -1)
                    if client in clients:
                        with contextlib.suppress(OSError):
                            clients[client].sendall(b"%d\n" % code)
                        drop(client)
            elif handle == listener.fileno():
                client_socket, _ = listener.accept()
                command, streams = _receive(client_socket)
                if command is None or not _can_run(command, forks, server):
                    _refuse(client_socket, streams)
                    continue
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    forks.die_with(os.getppid())
                    for target, stream in enumerate(streams):
                        os.dup2(stream, target)
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for descriptor in (*streams, wake_read, wake_write):
                        os.close(descriptor)
                    for connection in (listener, client_socket, *clients.values()):
                        connection.close()
                    return command
                for stream in streams:
                    os.close(stream)
                clients[client_socket.fileno()] = client_socket
                running[pid] = client_socket.fileno()
                waiting.register(client_socket.fileno(), select.POLLIN)
            else:
                received = b""
                with contextlib.suppress(OSError):
                    received = clients[handle].recv(64)
                pids = [pid for pid, client in running.items() if client == handle]
                for number in received or [signal.SIGKILL]:
                    for pid in pids:
                        _signal(pid, number)
                if not received:
                    drop(handle)


def _receive(client: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Read a request: the command, and the client's standard streams."""
    client.settimeout(5)
    content, streams = b"", list[int]()
    try:
        content, streams, _, _ = socket.recv_fds(client, 65536, 3)
        while not content.endswith(b"\n") and len(content) < _LARGEST_REQUEST:
            more = client.recv(65536)
            if not more:
                break
            content += more
        command = json.loads(content)
    except (OSError, ValueError):
        return None, streams
    client.settimeout(None)
    return (command if len(streams) == 3 else None), streams


def _can_run(command: dict[str, Any], forks: types.ModuleType, server: dict[str, str]) -> bool:
    return bool(command["prefix"] == os.path.realpath(sys.prefix)) and forks.can_fork(command["environment"], server)


def _refuse(client: socket.socket, streams: list[int]) -> None:
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):
        client.sendall(b"no\n")
    client.close()


def _signal(pid: int, number: int) -> None:
    """Signal a fork; SIGKILL goes to its whole group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def _run(arguments: list[str], path: list[str], forks: types.ModuleType) -> None:
    """Run `python <arguments>`: `-m module …` or `script …`."""
    if arguments[0] == "-m":
        forks.run_module(arguments[1], arguments[2:], path)
        return
    script = arguments[0]
    with open(script, "rb") as file:  # noqa: PTH123  this file imports little
        code = compile(file.read(), script, "exec")
    folder = os.path.dirname(os.path.realpath(script))  # noqa: PTH120
    main_module = forks.new_main([folder, *forks.python_path(), *path], arguments, arguments)
    main_module.__file__ = script
    exec(code, main_module.__dict__)  # noqa: S102  the script that the step names


if __name__ == "__main__":
    main()
