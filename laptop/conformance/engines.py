"""Find the real engines on the PATH, or build them once from pinned Go modules.

The modules are in `engines/<module>/`. What they give is kept outside the tree, in `mlops/engines` of XDG_CACHE_HOME or
~/.cache, under a name that contains the digest of the module's files. Tests only look for engines; `provide` builds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from laptop.cluster.watchdog import Watchdog
from pipelines.declarations.errors import MlopsError

MODULES = Path(__file__).with_name("engines")
"""Folder with one Go module per group of engines."""

MINIMUM_GO = "1.26.6"
"""Oldest Go that builds every module."""

_OLDEST_SWITCHING_GO = "1.21.0"  # fetches the Go that a module asks for, unless GOTOOLCHAIN forbids it
_REPORT_EVERY = 30.0  # seconds between lines that say that a build goes on
_LOOK = 0.2  # seconds between looks at a build
_ASKED_WITHIN = 30.0  # seconds
_NO_SPACE = "no space left on device"
_GIB = 1 << 30
_BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")

Say = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True)
class Engine:
    """An engine that is not ours.

    Attributes:
        name: name in reports and markers.
        module: folder of its Go module in `MODULES`.
        requirement: path of the Go module that its version is pinned by.
        package: Go package of its command.
        minimum: oldest version on the PATH that is used.
        executable: name of its file, on the PATH and in `binaries`.
        built: name that `go build` gives the file.
        arguments: arguments with which it prints its version; () if it cannot.
        stamps: Go variables that get the version when it is linked.
        assets: its other files: name beside the executable → pattern in the required module's folder.
    """

    name: str
    module: str
    requirement: str
    package: str
    minimum: str
    executable: str
    built: str
    arguments: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    assets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Pinned version, without the leading `v`.

        Raises:
            MlopsError: its `go.mod` does not require it.
        """
        file = MODULES / self.module / "go.mod"
        match = re.search(rf"^\s*(?:require )?{re.escape(self.requirement)} v(\S+)", file.read_text(), re.MULTILINE)
        if match is None:
            raise MlopsError(
                f"{file}: expected a requirement of {self.requirement}, found none", fix="restore the file."
            )
        return match[1]


_KUBERNETES_STAMPS = ("k8s.io/component-base/version.gitVersion",)
_STAGES = "kustomize/stage"

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="pulumi",
            module="pulumi",
            requirement="github.com/pulumi/pulumi/pkg/v3",
            package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            minimum="3.250.0",
            executable="pulumi",
            built="pulumi",
            arguments=("version",),
            stamps=("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",),
        ),
        Engine(
            name="pulumi-kubernetes",
            module="pulumi-kubernetes",
            requirement="github.com/pulumi/pulumi-kubernetes/provider/v4",
            package=".",
            minimum="4.0.0",
            executable="pulumi-resource-kubernetes",
            built="pulumi-kubernetes",
            assets={"schema.json": ("cmd/pulumi-resource-kubernetes/schema.json",)},
        ),
        Engine(
            name="etcd",
            module="etcd",
            requirement="go.etcd.io/etcd/server/v3",
            package="go.etcd.io/etcd/server/v3",
            minimum="3.5.0",
            executable="etcd",
            built="server",
            arguments=("--version",),
        ),
        Engine(
            name="kube-apiserver",
            module="kubernetes",
            requirement="k8s.io/kubernetes",
            package="k8s.io/kubernetes/cmd/kube-apiserver",
            minimum="1.33.0",
            executable="kube-apiserver",
            built="kube-apiserver",
            arguments=("--version",),
            stamps=_KUBERNETES_STAMPS,
        ),
        Engine(
            name="kube-controller-manager",
            module="kubernetes",
            requirement="k8s.io/kubernetes",
            package="k8s.io/kubernetes/cmd/kube-controller-manager",
            minimum="1.33.0",
            executable="kube-controller-manager",
            built="kube-controller-manager",
            arguments=("--version",),
            stamps=_KUBERNETES_STAMPS,
        ),
        Engine(
            name="argo-rollouts",
            module="argo-rollouts",
            requirement="github.com/argoproj/argo-rollouts",
            package="github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
            minimum="1.8.0",
            executable="rollouts-controller",
            built="rollouts-controller",
            arguments=("--version",),
            stamps=("github.com/argoproj/argo-rollouts/utils/version.version",),
            assets={"argo-crds": ("manifests/crds/*-crd.yaml",)},
        ),
        Engine(
            name="kwok",
            module="kwok",
            requirement="sigs.k8s.io/kwok",
            package="sigs.k8s.io/kwok/cmd/kwok",
            minimum="0.6.0",
            executable="kwok",
            built="kwok",
            arguments=("--version",),
            assets={
                "kwok-stages": (
                    f"{_STAGES}/node/heartbeat/*.yaml",
                    f"{_STAGES}/node/fast/*.yaml",
                    f"{_STAGES}/pod/fast/*.yaml",
                )
            },
        ),
    )
}
"""Every engine by name."""

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "argo-rollouts", "kwok")
"""Engines of a Kubernetes control plane."""

_BUILD_SPACE = {"pulumi": 4, "pulumi-kubernetes": 6, "etcd": 1, "kubernetes": 4, "argo-rollouts": 4, "kwok": 3}
"""Module → free space in GiB that its build needs at most."""

_BUILD_MINUTES = {"pulumi": 8, "pulumi-kubernetes": 14, "etcd": 1, "kubernetes": 9, "argo-rollouts": 5, "kwok": 2}
"""Module → minutes that its build takes on two cores with nothing cached."""


@dataclass(frozen=True)
class FoundEngine:
    """An engine on this machine.

    Attributes:
        engine: which one.
        path: its executable.
        version: its version, or the pinned one if it cannot print it.
        built: True if it was built here, False if it was on the PATH.
    """

    engine: Engine
    path: Path
    version: str
    built: bool


class EngineMissing(MlopsError):  # noqa: N818
    """An engine is not on this machine."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that built engines are kept in."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlops" / "engines"


def module_digest(module: str) -> str:
    """Return a digest of what a build of a module depends on: its files, and how they are built."""
    engines = [engine for engine in ENGINES.values() if engine.module == module]
    built = [(e.package, e.built, e.executable, e.stamps, sorted(e.assets.items())) for e in engines]
    digest = hashlib.sha256(repr((_BUILD_FLAGS, built)).encode())
    for file in sorted((MODULES / module).iterdir()):
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def built_folder(module: str, cache: Path | None = None) -> Path:
    """Return the folder with the engines of a module once they are built."""
    return (cache or cache_folder()) / f"{module}-{module_digest(module)[:16]}"


def find(name: str, cache: Path | None = None) -> FoundEngine:
    """Return an engine that is on the PATH in a usable version, or was built before.

    Raises:
        EngineMissing: it is neither.
    """
    engine = ENGINES[name]
    on_path = shutil.which(engine.executable)
    version, problem = _judge(engine, Path(on_path)) if on_path else ("", f"{engine.executable} is not on the PATH")
    if on_path and not problem:
        # A link may stand in a folder that does not last.
        return FoundEngine(engine, Path(on_path).resolve(), version, built=False)
    built = built_folder(engine.module, cache) / engine.executable
    if built.is_file():
        return FoundEngine(engine, built, engine.version, built=True)
    if shutil.which("go") is None:
        problem += f", and there is no Go to build it (expected {MINIMUM_GO} or newer)"
        raise EngineMissing(f"{engine.name}: {problem}", fix="install Go, or put the engine on the PATH.")
    raise EngineMissing(f"{engine.name}: {problem}, and it was not built", fix="make conformance builds it.")


def provide(name: str, say: Say, cache: Path | None = None) -> FoundEngine:
    """Return an engine; build the engines of its module if it is not on this machine.

    Args:
        name: name of the engine.
        say: takes lines of progress.
        cache: folder for built engines; `cache_folder()` if None.

    Raises:
        EngineMissing: it cannot be built here: there is no Go, no disk space, or the build failed.
    """
    engine = ENGINES[name]
    on_path = shutil.which(engine.executable)
    if on_path and (problem := _judge(engine, Path(on_path))[1]):
        say(f"{name}: {problem}; the pinned {engine.version} is used instead")
    try:
        return find(name, cache)
    except EngineMissing:
        _build(engine.module, cache or cache_folder(), say)
    return find(name, cache)


def remove_build_cache(cache: Path | None = None) -> bool:
    """Remove Go's build cache, several GB that built engines do not need. Return False if a build is going on."""
    folder = cache or cache_folder()
    locks = [FileLock(folder / f".{module}.lock") for module in _BUILD_SPACE]
    with ExitStack() as held:
        for lock in locks:
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                return False
        shutil.rmtree(folder.parent / "go-build", ignore_errors=True)
    return True


def _judge(engine: Engine, path: Path) -> tuple[str, str]:
    """Return the version of an executable on the PATH, and why it cannot be used, or ""."""
    for name in engine.assets:
        if not (path.resolve().parent / name).exists():
            return "", f"{path} has no {name} beside it"
    if not engine.arguments:
        return engine.version, ""
    try:
        done = subprocess.run(
            [path, *engine.arguments], capture_output=True, text=True, check=False, timeout=_ASKED_WITHIN
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{path} does not tell its version: {error}"
    found = version_in(done.stdout + done.stderr)
    if found is None:
        return "", f"{path} does not tell its version"
    if numbers(found) < numbers(engine.minimum):
        return found, f"{path} is too old: expected {engine.minimum} or newer, found {found}"
    return found, ""


def version_in(text: str) -> str | None:
    """Return the first version in a text, such as `1.34.5`, or None."""
    match = re.search(r"\bv?(\d+\.\d+\.\d+(?:-[\w.]+)?)", text)
    return match[1] if match else None


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version for comparison: `1.34.5-rc.1` → (1, 34, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def _build(module: str, cache: Path, say: Say) -> None:
    """Build the engines of a module, unless another process has done it in the meantime."""
    engines = [engine for engine in ENGINES.values() if engine.module == module]
    wanted = built_folder(module, cache)
    go = _find_go(module)
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / f".{module}.lock", module, say):
        if wanted.is_dir():
            return
        _need_space(module, cache)
        names = ", ".join(f"{engine.name} {engine.version}" for engine in engines)
        say(f"building {names} from {MODULES / module}; about {_BUILD_MINUTES[module]} min on two cores the first time")
        for left in cache.glob(f".{module}-*.build"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{module}-", suffix=".build") as draft:
            folder = Path(draft, "out")
            folder.mkdir()
            environ = _go_environ(cache, Path(draft))
            for engine in engines:
                stamps = " ".join(f"-X {variable}={_stamp(engine)}" for variable in engine.stamps)
                command = [go, "build", *_BUILD_FLAGS, f"-ldflags=-s -w {stamps}", "-o", f"{folder}/", engine.package]
                _run_go(command, engine, environ, say)
                if engine.built != engine.executable:
                    (folder / engine.built).rename(folder / engine.executable)
                _copy_assets(go, engine, folder, environ)
            folder.rename(wanted)
        say(f"built {names} in {_duration(time.monotonic() - started)}")


def _stamp(engine: Engine) -> str:
    """Return the version as the engine's own releases write it: Argo's template adds the `v`."""
    return engine.version if engine.name == "argo-rollouts" else f"v{engine.version}"


def _find_go(module: str) -> str:
    go = shutil.which("go")
    if go is None:
        raise EngineMissing(
            f"{module}: not on the PATH, and Go is missing, which builds it: expected Go {MINIMUM_GO} or newer",
            fix="install Go, or put the engine on the PATH.",
        )
    done = subprocess.run([go, "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True, check=False)
    version, _, toolchain = done.stdout.strip().partition("\n")
    oldest = MINIMUM_GO if toolchain.startswith(("local", "go")) else _OLDEST_SWITCHING_GO
    if numbers(version.removeprefix("go")) < numbers(oldest):
        raise EngineMissing(
            f"{module}: Go is too old to build it: expected {MINIMUM_GO} or newer, found {version or 'none'}",
            fix="install a newer Go, or put the engine on the PATH.",
        )
    return go


def _go_environ(cache: Path, draft: Path) -> dict[str, str]:
    scratch = draft / "tmp"
    scratch.mkdir()
    return {
        **os.environ,
        "GOCACHE": str(cache.parent / "go-build"),
        "GOTMPDIR": str(scratch),
        "GOFLAGS": "",
        "GOWORK": "off",
    }


def _need_space(module: str, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < _BUILD_SPACE[module] * _GIB:
        raise _no_space(module, cache, free)


def _no_space(module: str, cache: Path, free: int) -> EngineMissing:
    return EngineMissing(
        f"{module}: not enough disk space to build it in {cache}: expected {_BUILD_SPACE[module]} GiB, "
        f"found {free / _GIB:.1f} GiB",
        fix="free some space, or set XDG_CACHE_HOME to a folder on another disk.",
    )


def _run_go(command: list[str], engine: Engine, environ: Mapping[str, str], say: Say) -> None:
    """Run `go build` in a session of its own, so that an interruption ends its compilers too."""
    with tempfile.TemporaryFile() as errors:
        started = reported = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=MODULES / engine.module,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watchdog = Watchdog()  # ends the compilers if this process is killed
        watchdog.guard(process.pid)
        try:
            while process.poll() is None:
                time.sleep(_LOOK)
                if time.monotonic() - reported >= _REPORT_EVERY:
                    reported = time.monotonic()
                    say(f"still building {engine.name}: {_duration(reported - started)}")
        finally:
            _end(process)
            watchdog.release(process.pid)
            watchdog.close()
        if process.returncode == 0:
            return
        errors.seek(0)
        lines = errors.read().decode(errors="replace").splitlines()
    cache = Path(environ["GOCACHE"]).parent / "engines"
    if any(_NO_SPACE in line for line in lines):
        raise _no_space(engine.module, cache, shutil.disk_usage(cache).free)
    tail = "\n".join(f"  | {line}" for line in lines[-10:])
    raise EngineMissing(
        f"{engine.name}: `go build` failed with status {process.returncode}\n{tail}",
        fix="check that Go can download modules (go env GOPROXY), then try again.",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _copy_assets(go: str, engine: Engine, folder: Path, environ: Mapping[str, str]) -> None:
    """Copy the other files of an engine from the module cache: one file, or a folder of files."""
    if not engine.assets:
        return
    command = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", engine.requirement]
    done = subprocess.run(
        command, cwd=MODULES / engine.module, env=dict(environ), capture_output=True, text=True, check=True
    )
    source = Path(done.stdout.strip())
    for name, patterns in engine.assets.items():
        files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
        files = [file for file in files if file.name != "kustomization.yaml"]
        if not files:
            raise EngineMissing(f"{engine.name}: {source} has no {', '.join(patterns)}", fix="correct its assets.")
        target = folder / name
        if Path(name).suffix:
            target.write_bytes(files[0].read_bytes())
        else:
            target.mkdir()
            for file in files:
                (target / file.name).write_bytes(file.read_bytes())


@contextmanager
def _lock(path: Path, module: str, say: Say) -> Iterator[None]:
    """Hold the lock of a module. The kernel frees it however the holder ends."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that builds {module}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def link_binaries(folder: Path, names: tuple[str, ...]) -> Path:
    """Link engines and their other files into one folder, under the names of their executables, and return it.

    Args:
        folder: a folder, made if necessary.
        names: engines, all found on this machine.

    Raises:
        EngineMissing: one of them is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = find(name)
        sources = {found.engine.executable: found.path}
        sources |= {asset: found.path.resolve().parent / asset for asset in found.engine.assets}
        for link, source in sources.items():
            if not (folder / link).is_symlink():
                (folder / link).symlink_to(source)
    return folder
