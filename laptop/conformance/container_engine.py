"""Build and run the images with the container engine of this machine: docker, podman or buildah.

buildah has no daemon and runs nothing read-only, so runc runs its images. Where no image registry can be reached, it
replaces the pinned base image by one that debootstrap makes; the record of a run says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from laptop.conformance.engines import cache_folder, version_in
from pipelines.declarations.errors import MlopsError

_BASE = re.compile(r"^(FROM )(python:\S+@sha256:[0-9a-f]{64})", re.MULTILINE)
_OWN_BASE = "localhost/conformance-base:1"
_CERTIFICATES = "/etc/ssl/certs"
_MORE_CERTIFICATES = "/usr/local/share/ca-certificates"
_SUITE = "bookworm"  # its Python is 3.11, that of the pinned image
_BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "python-is-python3", "ca-certificates")
_ASKED_WITHIN = 20.0  # seconds
_PULLED_WITHIN = 120.0  # seconds
_BUILT_WITHIN = 900.0  # seconds


class NoContainerEngine(MlopsError):  # noqa: N818
    """This machine can build or run no images."""


class DockerEngine:
    """docker or podman.

    Args:
        command: `docker` or `podman`.
    """

    def __init__(self, command: str) -> None:
        self.name = command
        self.base = "as pinned"

    def version(self) -> str:
        """Return the engine's version."""
        return version_in(_checked([self.name, "--version"])) or "unknown"

    def build(self, dockerfile: Path, context: Path, tag: str) -> None:
        """Build an image.

        Raises:
            MlopsError: the build failed; the message ends with its log.
        """
        _checked([self.name, "build", "--quiet", "--file", str(dockerfile), "--tag", tag, str(context)])

    @contextmanager
    def start(self, tag: str, command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Start a container as a pod would be: read-only, as 10001, without capabilities, with a /tmp of its own.

        Args:
            tag: image.
            command: replaces its entry point.
            environ: variables in addition to those of the image.
        """
        variables = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        entry, *rest = command
        line = [
            *(self.name, "run", "--rm", "--read-only", "--user", "10001:10001", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--network", "host"),
            *variables,
            *("--entrypoint", entry, tag, *rest),
        ]
        with _process(line) as process:
            yield process

    def close(self) -> None:
        """Do nothing: the engine keeps its images."""


class BuildahEngine:
    """buildah, with runc to run its images.

    Args:
        folder: an empty folder for its images.
    """

    name = "buildah"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._storage = [
            "buildah",
            *("--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"),
        ]
        self.base = ""

    def version(self) -> str:
        """Return the engine's version."""
        return version_in(_checked(["buildah", "--version"])) or "unknown"

    def build(self, dockerfile: Path, context: Path, tag: str) -> None:
        """Build an image, on the pinned base or on our own.

        Raises:
            MlopsError: the build failed; the message ends with its log.
        """
        text = dockerfile.read_text()
        pinned = _BASE.search(text)
        if pinned is None:
            raise MlopsError(f"{dockerfile}: expected `FROM python:…@sha256:…`, found none", fix="pin the base image.")
        if not self.base:
            self.base = "as pinned" if self._pull(pinned[2]) else self._make_base()
        own = dockerfile
        if self.base != "as pinned":
            own = self._folder / f"Dockerfile.{tag}"
            own.write_text(_BASE.sub(rf"\1{_OWN_BASE}", text))
        mounts = [f"--volume={path}:{path}:ro" for path in (_CERTIFICATES, _MORE_CERTIFICATES) if Path(path).is_dir()]
        _checked([*self._storage, "bud", "--isolation", "chroot", *mounts, "-f", str(own), "-t", tag, str(context)])

    @contextmanager
    def start(self, tag: str, command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Start a container as a pod would be: read-only, as 10001, without capabilities, with a /tmp of its own.

        Args:
            tag: image.
            command: replaces its entry point.
            environ: variables in addition to those of the image.
        """
        container = _checked([*self._storage, "from", f"localhost/{tag}"]).strip()
        root = _checked([*self._storage, "mount", container]).strip()
        inspected = json.loads(_checked([*self._storage, "inspect", container]))["OCIv1"]["config"]
        with tempfile.TemporaryDirectory(dir=self._folder) as bundle:
            config = runtime_config(root, inspected, command, environ)
            Path(bundle, "config.json").write_text(json.dumps(config))
            name = f"conformance-{os.getpid()}-{container}"
            state = ["runc", "--root", str(self._folder / "runc")]
            try:
                with _process([*state, "run", "--bundle", bundle, name]) as process:
                    yield process
            finally:
                subprocess.run([*state, "delete", "--force", name], capture_output=True, check=False)
                _checked([*self._storage, "umount", container])
                _checked([*self._storage, "rm", container])

    def close(self) -> None:
        """Remove the images."""
        subprocess.run([*self._storage, "rm", "--all"], capture_output=True, check=False)
        subprocess.run([*self._storage, "rmi", "--all", "--force"], capture_output=True, check=False)

    def _pull(self, image: str) -> bool:
        command = [*self._storage, "pull", "--quiet", image]
        try:
            return subprocess.run(command, capture_output=True, check=False, timeout=_PULLED_WITHIN).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _make_base(self) -> str:
        """Make a base image of Debian's own packages, kept in the cache, and return what it is."""
        archive = cache_folder().parent / "images" / f"{_SUITE}-python.tar"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(archive.with_suffix(".lock")):
            if not archive.exists():
                _debootstrap(archive)
        container = _checked([*self._storage, "from", "scratch"]).strip()
        _checked([*self._storage, "add", "--quiet", container, str(archive), "/"])
        trusted = f"{_CERTIFICATES}/ca-certificates.crt"
        variables = [f"--env={name}={trusted}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        _checked([*self._storage, "config", *variables, container])
        _checked([*self._storage, "commit", "--quiet", container, _OWN_BASE])
        _checked([*self._storage, "rm", container])
        return f"on Debian {_SUITE}, without the pinned base"


Engine = DockerEngine | BuildahEngine


def find_container_engine(folder: Path) -> Engine:
    """Return the first container engine that works here.

    Args:
        folder: an empty folder for the images of buildah.

    Raises:
        NoContainerEngine: none does; the message says why.
    """
    reasons = []
    for command in ("docker", "podman"):
        if shutil.which(command) is None:
            reasons.append(f"{command} is not on the PATH")
        elif _works([command, "info"]):
            return DockerEngine(command)
        else:
            reasons.append(f"`{command} info` fails: its daemon does not run, or this user may not use it")
    missing = [command for command in ("buildah", "runc", "debootstrap") if shutil.which(command) is None]
    if not missing and os.geteuid() == 0:
        return BuildahEngine(folder)
    reasons.append(f"for buildah, missing: {', '.join(missing)}" if missing else "buildah needs root here")
    raise NoContainerEngine("; ".join(reasons), fix="install docker or podman, or buildah, runc and debootstrap.")


def runtime_config(
    root: str, image: Mapping[str, Any], command: Sequence[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the configuration of an OCI runtime for a container that has no more than a pod of this program.

    Args:
        root: folder of the image's files.
        image: the image's own configuration.
        command: command to run.
        environ: variables in addition to those of the image.
    """
    variables = [*(image.get("Env") or ()), *(f"{name}={value}" for name, value in environ.items())]
    scratch = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    devices = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
    user, _, group = str(image["User"]).partition(":")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": list(command),
            "env": variables,
            "cwd": image.get("WorkingDir") or "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, devices, scratch],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def _debootstrap(archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="debootstrap-") as draft:
        root = Path(draft, "root")
        packages = ",".join(_BASE_PACKAGES)
        _checked(["debootstrap", "--variant=minbase", f"--include={packages}", _SUITE, str(root)])
        for path in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / path, ignore_errors=True)
        for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()  # the official image has no such mark either
        made = Path(draft, archive.name)
        _checked(["tar", "--create", "--file", str(made), "--directory", str(root), "--exclude=./proc/*", "."])
        made.rename(archive)


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


def _works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_ASKED_WITHIN).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _checked(command: Sequence[str]) -> str:
    """Run a command and return its standard output.

    Raises:
        MlopsError: it failed; the message ends with what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILT_WITHIN)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-15:]
        tail = "\n".join(f"  | {line}" for line in lines)
        raise MlopsError(f"`{' '.join(command[:2])} …` failed with status {done.returncode}\n{tail}")
    return done.stdout
