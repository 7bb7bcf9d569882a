"""Python language host for the Pulumi CLI: runs programs and policy packs.

The release of the CLI brings its own, `pulumi-language-python`. This one serves a CLI that was built from its Go
module, which lacks it. It speaks the same protocol, so the CLI starts it by the same name.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from laptop.engine import program_script
from laptop.engine.plugin_process import serve
from pipelines.declarations.errors import MlopsError

_ENDING_WITHIN = 5.0  # seconds between SIGTERM and SIGKILL
_LIST_PACKAGES = """
import json, importlib.metadata as metadata
print(json.dumps(sorted({(found.metadata["Name"], found.version) for found in metadata.distributions()})))
"""
_FIND_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Serves `pulumirpc.LanguageRuntime`. Methods that generate code are not implemented.

    Args:
        engine: address of the CLI's engine; replaced by `Handshake`.
    """

    def __init__(self, engine: str = "") -> None:
        self._engine = engine
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802 - Pulumi's names
        self._engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            found = required_plugins(_site_packages(_interpreter(request.info)))
            packages = [plugin_pb2.PackageDependency(kind="resource", **plugin) for plugin in found]
            return language_pb2.GetRequiredPackagesResponse(packages=packages)

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            found = required_plugins(_site_packages(_interpreter(request.info)))
            plugins = [plugin_pb2.PluginDependency(kind="resource", **plugin) for plugin in found]
            return language_pb2.GetRequiredPluginsResponse(plugins=plugins)

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            command = run_command(request, _interpreter(request.info), self._engine)
            environment = {
                **os.environ,
                "PULUMI_CONFIG": json.dumps(dict(request.config)),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
            }
            with self._child(command, Path(request.info.program_directory), environment, context) as process:
                return run_result(process.wait())

    def RunPlugin(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            module = "pulumi.policy" if request.kind == "analyzer" else "pulumi.run.plugin"
            folder = Path(request.info.program_directory, request.info.entry_point)
            command = [str(_interpreter(request.info)), "-u", "-m", module, *request.args, str(folder)]
            environment = dict(entry.partition("=")[::2] for entry in request.env) or dict(os.environ)
            with self._child(command, Path(request.pwd), environment, context, piped=True) as process:
                yield from _streamed(process)
                yield language_pb2.RunPluginResponse(exitcode=process.wait())

    def InstallDependencies(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            interpreter = _interpreter(request.info)
        yield language_pb2.InstallDependenciesResponse(
            stdout=f"using {interpreter}, which `make setup` made\n".encode()
        )

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _refusing(context):
            found = json.loads(_answer(_interpreter(request.info), _LIST_PACKAGES))
            dependencies = [language_pb2.DependencyInfo(name=name, version=version) for name, version in found]
            return language_pb2.GetProgramDependenciesResponse(dependencies=dependencies)

    def About(self, request: Any, context: Any) -> Any:  # noqa: N802
        executable, version = sys.executable, platform.python_version()
        if request.HasField("info"):
            with _refusing(context):
                executable = str(_interpreter(request.info))
                version = _answer(Path(executable), "import platform; print(platform.python_version())")
        return language_pb2.AboutResponse(executable=executable, version=version)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.end_children()
        return empty_pb2.Empty()

    def end_children(self) -> None:
        """End the programs and policy packs that run."""
        with self._lock:
            running = list(self._running)
        for process in running:
            _end(process)

    @contextlib.contextmanager
    def _child(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        context: Any,
        *,
        piped: bool = False,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a child process that ends with the call.

        Its output goes to this process's, which the CLI shows, or into pipes.
        """
        output = subprocess.PIPE if piped else None
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with self._lock:
            self._running.add(process)
        # The CLI cancels the call when it no longer needs the child; the call then waits for nothing else.
        context.add_callback(lambda: _end(process))
        try:
            yield process
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)


def required_plugins(site_packages: Path) -> list[dict[str, Any]]:
    """List the resource plugins that installed SDKs name, sorted: `name`, `version` and, if given, `server`."""
    found: dict[str, dict[str, Any]] = {}
    for file in site_packages.glob("*/pulumi-plugin.json"):
        with contextlib.suppress(OSError, ValueError):
            described = json.loads(file.read_text(encoding="utf-8"))
            if described.get("resource") and described.get("name"):
                kept = {key: str(described[key]) for key in ("name", "version", "server") if described.get(key)}
                found[kept["name"]] = kept
    return [found[name] for name in sorted(found)]


def run_command(request: Any, interpreter: Path, engine: str) -> list[str]:
    """Return the command that runs a program.

    Args:
        request: a `RunRequest`.
        interpreter: Python of the program.
        engine: address of the engine.
    """
    options = {
        "--project": request.project,
        "--stack": request.stack,
        "--organization": request.organization,
        "--root": request.info.root_directory,
        "--pwd": request.pwd or request.info.program_directory,
        "--monitor": request.monitor_address,
        "--engine": engine,
        "--parallel": str(max(request.parallel, 1)),
    }
    # -P keeps the script's folder off sys.path, so that its neighbours do not hide modules of the program.
    command = [str(interpreter), "-u", "-P", program_script.__file__]
    command += [part for name, value in options.items() if value for part in (name, value)]
    if request.dryRun:
        command.append("--dry-run")
    program = Path(request.info.program_directory, request.info.entry_point or ".")
    return [*command, "--", str(program), *request.args]


def run_result(exit_code: int) -> Any:
    """Return the `RunResponse` for the exit code of a program."""
    if exit_code == program_script.ERROR_WAS_SHOWN:
        return language_pb2.RunResponse(bail=True)
    if exit_code:
        return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {exit_code}")
    return language_pb2.RunResponse()


def find_interpreter(root: Path, options: Mapping[str, Any]) -> Path:
    """Return the Python interpreter of a project.

    Args:
        root: folder with `Pulumi.yaml` or `PulumiPolicy.yaml`.
        options: `runtime.options` of that file; `virtualenv` is relative to `root`.

    Raises:
        MlopsError: the virtual environment does not exist.
    """
    virtualenv = options.get("virtualenv")
    if not virtualenv:
        return Path(sys.executable)
    interpreter = root / str(virtualenv) / "bin" / "python"
    if not interpreter.exists():
        raise MlopsError(
            f"the virtual environment of the program does not exist: expected {interpreter}, found nothing",
            fix="make it: `make setup`.",
        )
    # Not resolved: a virtual environment is found by the path of its link to Python.
    return Path(os.path.normpath(interpreter))


def _interpreter(info: Any) -> Path:
    options = json_format.MessageToDict(info.options)
    return find_interpreter(Path(info.root_directory or info.program_directory or "."), options)


def _site_packages(interpreter: Path) -> Path:
    return Path(_answer(interpreter, _FIND_PACKAGES))


def _answer(interpreter: Path, code: str) -> str:
    """Return what a line of Python prints in another interpreter."""
    ran = subprocess.run([str(interpreter), "-I", "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise MlopsError(f"{interpreter} does not run: {ran.stderr.strip()}", fix="make it again: `make setup`.")
    return ran.stdout.strip()


def _streamed(process: subprocess.Popen[bytes]) -> Iterator[Any]:
    """Yield the output of a process as it arrives, until both of its streams end."""
    arrived: queue.Queue[Any] = queue.Queue()

    def pump(name: str, stream: Any) -> None:
        while chunk := stream.read1(65536):
            arrived.put(language_pb2.RunPluginResponse(**{name: chunk}))
        arrived.put(None)

    streams = {"stdout": process.stdout, "stderr": process.stderr}
    for name, stream in streams.items():
        threading.Thread(target=pump, args=(name, stream), daemon=True).start()
    ended = 0
    while ended < len(streams):
        message = arrived.get()
        if message is None:
            ended += 1
        else:
            yield message


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_ENDING_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _refusing(context: Any) -> Iterator[None]:
    """Turn an MlopsError into the status of the call."""
    try:
        yield
    except MlopsError as error:
        _abort(context, error)


def _abort(context: Any, error: MlopsError) -> NoReturn:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    raise AssertionError("abort raises")


def main() -> None:
    """Serve the language host. The CLI gives the address of its engine as the last argument."""
    host = LanguageHost(sys.argv[-1] if len(sys.argv) > 1 else "")
    try:
        serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server))
    finally:
        host.end_children()


if __name__ == "__main__":
    main()
