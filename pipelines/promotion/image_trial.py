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

    Raises:
        MlopsError: the image has no pins, or they cannot be installed.
    """
    try:
        text = requirements.read_text()
    except OSError:
        raise MlopsError(f"the commit of the image has no {REQUIREMENTS}", fix="build a newer image") from None
    if has_packages(text):
        return Path(sys.executable)
    uv = str(Path(sys.executable).with_name("uv"))
    python = folder / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(requirements)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise MlopsError(f"{uv} does not exist", fix="run `make setup`") from None
        if done.returncode:
            raise MlopsError(f"the packages of the image cannot be installed: {done.stderr.strip()[-500:]}")
    return python


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
