"""Process that has imported the large libraries, and forks for every container that runs `python -m <module>`.

Pods are short Python processes that spend most of their time on the same imports. A fork of this process has them
already. Only third-party libraries are imported here, never the project's own modules, whose content comes from the
image of each pod.

A fork must behave like a new interpreter. It gets its own environment, working directory, module path, standard
streams, session and process group, and it ends through the interpreter's ordinary exit. Some variables are read only
when an interpreter starts or a library is loaded: `can_fork` is False for a container that sets one of them to another
value, and it is started as a new process. This process must be single-threaded, because a fork copies only the thread
that forks: it reports its threads, and is not used if a library has started one.

`laptop.cluster.fork_client` runs this file without the project on its path and with a socket as standard input. It
reads requests, one line of JSON each, and writes replies; see `ForkRequest` and `serve`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SHARED = (
    *("msgspec", "yaml", "rfc8785", "annotated_types", "zoneinfo", "sysconfig", "difflib", "encodings.idna"),
    *(
        f"pydantic.{name}"
        for name in ("main", "fields", "types", "type_adapter", "json_schema", "functional_validators")
    ),
    *(f"pydantic.{name}" for name in ("plugin._schema_validator", "plugin._loader")),
    *("boto3", "boto3.s3.inject", "boto3.s3.transfer", "botocore.client", "botocore.config", "botocore.endpoint"),
    *("s3transfer.manager", "s3transfer.subscribers", "numpy", "numpy.typing", "onnxruntime"),
    *("cryptography.hazmat.primitives.asymmetric.ec", "cryptography.hazmat.primitives.serialization"),
)
"""Modules that both jobs and the command line import. Several libraries delay imports: their parts are named."""

PRELOADED = (
    *SHARED,
    *("pandas", "scipy.stats", "scipy.linalg", "sklearn.pipeline", "sklearn.preprocessing"),
    *(
        "sklearn.linear_model",
        "sklearn.ensemble",
        "threadpoolctl",
        "fairlearn.metrics",
        "narwhals._pandas_like.dataframe",
    ),
    *("pyarrow", "pyarrow.parquet", "pyarrow.compute", "pyarrow.dataset"),
    *("pyiceberg.table", "pyiceberg.catalog.glue", "pyiceberg.io.pyarrow", "pyroaring", "openlineage.client"),
    *("prometheus_client", "uvicorn", "uvloop", "httptools"),
)
"""Modules of the images' requirements; one that is not installed is skipped. `module:name` loads a name of a module.

duckdb is not among them: it is quick to import, and where objects are frozen it reports leaks when a process ends.
"""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    # Without these, libraries start threads when they are loaded.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Variables of this process. A container that leaves them unset gets their effect, such as one BLAS thread."""

READ_EARLY = (
    *("PYTHON", "LANG", "LC_", "LD_", "GLIBC_", "MALLOC_", "JE_", "MIMALLOC_"),
    *("OMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NPY_", "NUMEXPR_"),
    *("ARROW_", "ORT_", "ONNX", "DUCKDB_", "PYICEBERG_", "SCIPY_", "SKLEARN_", "PANDAS_"),
)
"""Prefixes of variables that the interpreter or a library reads only once."""

_SET_IN_CHILD = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
_PR_SET_PDEATHSIG = 1  # prctl(2)


class ForkRequest(NamedTuple):
    """A container to run.

    Attributes:
        id: number that the reply repeats.
        module: module to run, as after `python -m`.
        arguments: arguments of the module.
        environment: the whole environment.
        folder: working directory.
        log: file to which standard output and standard error are appended.
    """

    id: int
    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    log: str


def can_fork(environment: Mapping[str, str], server: Mapping[str, str] = ENVIRONMENT) -> bool:
    """Return whether a fork can behave as a new interpreter with these variables would.

    Args:
        environment: variables of the new process.
        server: variables that the fork server was started with.
    """
    return all(
        server.get(name) == value
        for name, value in environment.items()
        if name.startswith(READ_EARLY) and name not in _SET_IN_CHILD
    )


def serve(channel: socket.socket) -> ForkRequest:
    """Serve requests. Returns only in a fork, with the request to run.

    A reply is `{"id": …, "pid": …}` or `{"id": …, "error": errno}`; the end of a fork is `{"pid": …, "code": …}`, the
    exit code or minus the signal.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    waiting = select.poll()
    for handle in (channel.fileno(), wake_read):
        waiting.register(handle, select.POLLIN)
    buffer = b""
    while True:
        ready = {handle for handle, _ in waiting.poll()}
        if wake_read in ready:
            os.read(wake_read, 4096)
            for pid, code in reap():
                _reply(channel, pid=pid, code=code)
        if channel.fileno() in ready:
            received = channel.recv(65536)
            if not received:
                os._exit(0)  # the cluster has ended; the kernel ends the forks
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                request = ForkRequest(**json.loads(line))
                if _fork(request, channel):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for handle in (wake_read, wake_write):
                        os.close(handle)
                    channel.close()
                    return request


def reap() -> Iterator[tuple[int, int]]:
    """Reap the children that have ended: process id and exit code, or minus the signal that ended it."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _fork(request: ForkRequest, channel: socket.socket) -> bool:
    """Fork, and return True in the child once it is in its own session. The parent replies after that."""
    try:
        log = os.open(request.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        _reply(channel, id=request.id, error=error.errno)
        return False
    parent, (read, write) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(log)
        os.close(write)
        os.read(read, 1)  # ends when the child closes it
        os.close(read)
        _reply(channel, id=request.id, pid=pid)
        return False
    os.close(read)
    os.setsid()
    die_with(parent)
    _redirect(log)
    os.close(write)
    return True


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def _redirect(log: int) -> None:
    """Connect standard input to /dev/null, and both outputs to a file."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for handle in {nothing, log} - {0, 1, 2}:
        os.close(handle)


def run(request: ForkRequest, path: list[str]) -> None:
    """Run the module of a request in this process, as `python -m` does.

    Args:
        request: what to run.
        path: module path of a new interpreter without PYTHONPATH.
    """
    become_new(request.environment, request.folder)
    run_module(request.module, request.arguments, path)


def become_new(environment: Mapping[str, str], folder: str) -> None:
    """Give this process the state of a new interpreter: environment, working directory, random numbers."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    faulthandler.enable()  # a crash in a library's own code says where
    tempfile.tempdir = None
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # forks would share the state of the global generator
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    importlib.invalidate_caches()


def run_module(module: str, arguments: list[str], path: list[str]) -> None:
    """Run a module as `python -m` does; the working directory comes first on the module path."""
    new_main([str(Path.cwd()), *python_path(), *path], ["-m", *arguments], ["-m", module, *arguments])
    # What `python -m` calls. `runpy.run_module` would put the old `__main__` back before the interpreter exits.
    runpy._run_module_as_main(module)  # type: ignore[attr-defined]


def python_path() -> list[str]:
    """Return the entries of PYTHONPATH."""
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def new_main(path: list[str], arguments: list[str], original: list[str]) -> types.ModuleType:
    """Set the module path and the arguments, and put an empty `__main__` in place.

    Args:
        path: `sys.path`.
        arguments: `sys.argv`.
        original: `sys.orig_argv` without the interpreter.
    """
    sys.path[:] = path
    sys.argv[:] = arguments
    sys.orig_argv[:] = [sys.executable, *original]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__annotations__ = {}  # as a new interpreter has it
    return main


def skip_teardown(modules: Iterable[str]) -> None:
    """Keep modules alive when the interpreter exits: tearing them down takes ten times as long as the fork.

    Everything else is torn down as usual: files are flushed, and the program's own objects are deleted.
    """
    kept = [sys.modules.pop(name) for name in modules if name in sys.modules]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def preload(names: Iterable[str] = PRELOADED) -> set[str]:
    """Import modules, and return the names of all modules that came with them.

    Their objects are frozen: the garbage collector skips them, and forks share their memory.
    """
    before = set(sys.modules)
    for name in names:
        module, _, attribute = name.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            imported = importlib.import_module(module)
            if attribute:
                getattr(imported, attribute)  # loads a module that delays its own import
    gc.collect()
    gc.freeze()
    return set(sys.modules) - before


def threads() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208  this file imports little


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _reply(channel: socket.socket, **reply: Any) -> None:
    channel.sendall(json.dumps(reply).encode() + b"\n")


def main() -> None:
    """Preload, then serve the socket that is standard input."""
    channel = socket.socket(fileno=os.dup(0))
    path = [entry for entry in sys.path if entry]  # without the working directory
    sys.path[:] = path
    modules = preload()
    _reply(channel, threads=threads())
    request = serve(channel)
    atexit.register(skip_teardown, modules)  # registered first, it runs last
    run(request, path)


if __name__ == "__main__":
    main()
