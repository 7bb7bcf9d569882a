"""Image trial: check live bundles with the inference code and the pinned packages of an image, without a container."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.bundle import MANIFEST
from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.promotion.facts.pin_facts import ImageTrial
from pipelines.registry.evidence import VerifiedBundle

REQUIREMENTS = Path("requirements", "serving.txt")
"""Pinned packages of the serving image, in its commit."""

LONGEST_SECONDS = 300
"""Time limit of the check of all bundles."""

LONGEST_INSTALLATION = 600
"""Time limit of the installation of its packages, in seconds."""

_INSTALLER = (
    *("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""Environment variables of the installer, and those that begin with `UV_`."""

_PIN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9.!+_-]+"
    r"(\s*;((?!--)[^#@\\])*?)?(\s+--hash=sha256:[0-9a-f]{64})+"
)
"""A pin: name, extras, version, marker and hashes."""

_HERE = Path(__file__).parents[2]
"""Source of the gates."""

_RESULTS = TypeAdapter(dict[str, ImageTrial])


@contextmanager
def source_of(git: Git, commit: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a commit.

    Raises:
        MlopsError: the commit does not exist.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-source-") as folder:
        # git refuses paths that leave the folder. tarfile does so only in newer releases of Python 3.11.
        source, index = Path(folder, "source"), str(Path(folder, "index"))
        source.mkdir()
        checkout = replace(git, env={**(git.env or {}), "GIT_INDEX_FILE": index})
        checkout.run(f"--work-tree={source}", "read-tree", "--no-sparse-checkout", "--reset", "-u", commit)
        yield source


def try_image(source: Path, bundles: Mapping[str, VerifiedBundle]) -> dict[str, ImageTrial]:
    """Load bundles with the inference code in `source`, and compare their golden predictions.

    Args:
        source: the files of the commit that the image was built from, which must be on main, because its code runs.
        bundles: model → bundle with verified evidence and all files.

    Raises:
        MlopsError: the packages cannot be installed, or the check does not run at all.
    """
    if not bundles:
        return {}
    with tempfile.TemporaryDirectory(prefix="mlops-trial-") as scratch:
        held = Path(scratch, "bundles")
        for model, bundle in bundles.items():
            (held / model).mkdir(parents=True)
            (held / model / MANIFEST).write_bytes(bundle.manifest.manifest())
            for name, content in bundle.files.items():
                (held / model / name).write_bytes(content)
        packages = Path(scratch, "packages")
        return _run_check(_interpreter(source / REQUIREMENTS, packages), source, held, packages)


def _run_check(python: Path, source: Path, held: Path, packages: Path) -> dict[str, ImageTrial]:
    environ = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "ORT_DISABLE_TELEMETRY": "1"}
    environ["PYTHONPATH"] = os.pathsep.join([str(_HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "pipelines.promotion.image_trial_process"]
    command += map(str, (python, source, held, packages))
    try:
        done = subprocess.run(
            command, cwd=source, env=environ, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MlopsError(f"the check of the image's code took more than {LONGEST_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise MlopsError(f"the image's code cannot check bundles: {lines[-1]}", fix="build a newer image")
    try:
        return _RESULTS.validate_json(done.stdout)
    except ValidationError:
        raise MlopsError(f"the image's code did not print its results: found {done.stdout[:200]!r}") from None


def _interpreter(requirements: Path, folder: Path) -> Path:
    """Return a Python that has exactly the pinned packages of an image: this one, or a new one in `folder`.

    Nothing of a package runs: only wheels are installed, which are unpacked, and no source distribution is built.

    Raises:
        MlopsError: the image has no pins, or they cannot be installed.
    """
    try:
        text = requirements.read_text()
    except OSError:
        raise MlopsError(f"the commit of the image has no {REQUIREMENTS}", fix="build a newer image") from None
    if has_packages(text):
        return Path(sys.executable)
    check_pins(text)
    uv = str(Path(sys.executable).with_name("uv"))
    python = folder / "bin" / "python"
    wheels = ["--require-hashes", "--only-binary", ":all:", "-r", str(requirements)]
    for command in (
        [uv, "venv", "--quiet", "--no-config", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--no-config", "--python", str(python), *wheels],
    ):
        try:
            done = subprocess.run(
                command,
                env=_installer_environment(os.environ),
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST_INSTALLATION,
            )
        except FileNotFoundError:
            raise MlopsError(f"{uv} does not exist", fix="run `make setup`") from None
        except subprocess.TimeoutExpired:
            raise MlopsError(f"the packages of the image took more than {LONGEST_INSTALLATION} s to install") from None
        if done.returncode:
            raise MlopsError(
                f"the packages of the image cannot be installed as wheels: {done.stderr.strip()[-500:]}",
                fix="pin releases that have wheels, and build a newer image",
            )
    return python


def _installer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an installation needs: paths, the package index and the way to it."""
    return {name: value for name, value in environ.items() if name in _INSTALLER or name.startswith("UV_")}


def check_pins(pins: str) -> None:
    """Check that a lock file has nothing but pins with hashes. Options could change what is installed, and from where.

    Raises:
        MlopsError: it has something else.
    """
    for line in re.sub(r"\\\n", " ", pins).splitlines():
        said = line.partition(" #")[0].strip()
        if said and not said.startswith("#") and not _PIN.fullmatch(said):
            raise MlopsError(
                f"{REQUIREMENTS} of the image has {said[:100]!r}: expected pins such as `name==1.0 --hash=sha256:…`",
                fix="run `make lock`, and build a newer image",
            )


def has_packages(pins: str) -> bool:
    """Return whether this Python has the pinned packages of a lock file.

    A package that is pinned more than once, for different Pythons, may have any of its pins. A package that is pinned
    with a marker may be missing.
    """
    wanted: dict[str, set[str]] = {}
    required: set[str] = set()
    for name, version, rest in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)([^\n]*)", pins, re.MULTILINE):
        wanted.setdefault(name, set()).add(version)
        if ";" not in rest:
            required.add(name)
    for name, versions in wanted.items():
        try:
            if metadata.version(name) not in versions:
                return False
        except metadata.PackageNotFoundError:
            if name in required:
                return False
    return bool(wanted)
