"""actions/setup-python: use the one Python of the laptop, which stands in for other 3.x versions."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

from laptop.github.actions.remote import ActionCall, ActionResult
from pipelines.declarations.errors import MlopsError

INPUTS = frozenset(("python-version", "python-version-file", "cache", "cache-dependency-path", "check-latest"))


def setup_python(call: ActionCall) -> ActionResult:
    """Check the version. Outputs: `python-version` and `python-path`. Nothing is downloaded, so nothing is cached.

    Raises:
        MlopsError: there is no Python on the PATH, or it has another major version.
    """
    wanted = call.input("python-version")
    if not wanted:
        file = call.workspace / call.input("python-version-file", ".python-version")
        if not file.is_file() or file.suffix not in ("", ".txt"):
            raise MlopsError("actions/setup-python: set python-version, or a python-version-file with only the version")
        wanted = file.read_text(encoding="utf-8").strip()
    path = shutil.which("python3", path=call.environ["PATH"])
    if path is None:
        raise MlopsError("actions/setup-python: python3 is not on the PATH")
    found = _version_of(path, Path(path).stat().st_mtime_ns)
    if not _fits(found, wanted):
        if _numbers(found)[0] != _numbers(wanted)[0]:
            raise MlopsError(f"actions/setup-python: expected Python {wanted}, found {found} ({path})")
        call.log(f"the laptop's Python {found} stands in for {wanted}")
    call.log(f"Python {found} ({path})")
    return ActionResult({"python-version": found, "python-path": path})


@functools.lru_cache(maxsize=8)
def _version_of(path: str, _modified_ns: int) -> str:
    """Return the version of a Python. It is cached until the file changes."""
    code = "import platform; print(platform.python_version())"
    return subprocess.run([path, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _fits(found: str, wanted: str) -> bool:
    """Return whether a version satisfies `3.11`, `3.x`, `3.11.7` or `>=3.11`."""
    least = re.fullmatch(r">=\s*(\d+(?:\.\d+)*)", wanted)
    if least:
        return _numbers(found) >= _numbers(least[1])
    exact = re.sub(r"\.x$", "", wanted)
    if not re.fullmatch(r"\d+(?:\.\d+){0,2}", exact):
        raise MlopsError(f"actions/setup-python: expected a version such as 3.11 or >=3.11, found {wanted!r}")
    return _numbers(found)[: len(_numbers(exact))] == _numbers(exact)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
