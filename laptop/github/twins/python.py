"""actions/setup-python: the Python that is here must be the wanted one."""

from __future__ import annotations

import re
import shutil
import subprocess

from laptop.github.actions import Answer, Call
from pipelines.declarations.errors import MlopsError

INPUTS = frozenset(("python-version", "python-version-file", "cache", "cache-dependency-path", "check-latest"))


def setup_python(call: Call) -> Answer:
    """Check the version; outputs `python-version` and `python-path`. Nothing is downloaded, so nothing is cached.

    Raises:
        MlopsError: there is no Python on the PATH, or it is of another version.
    """
    wanted = call.input("python-version")
    if not wanted:
        file = call.workspace / call.input("python-version-file", ".python-version")
        if not file.is_file() or file.suffix not in ("", ".txt"):
            raise MlopsError("actions/setup-python: name python-version, or a python-version-file that holds only that")
        wanted = file.read_text(encoding="utf-8").strip()
    path = shutil.which("python3", path=call.environ["PATH"])
    if path is None:
        raise MlopsError("actions/setup-python: there is no python3 on the PATH")
    code = "import platform; print(platform.python_version())"
    found = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if not _fits(found, wanted):
        raise MlopsError(f"actions/setup-python: Python {wanted} is wanted, {path} is {found}")
    call.log(f"Python {found} ({path})")
    return Answer({"python-version": found, "python-path": path})


def _fits(found: str, wanted: str) -> bool:
    """Is `found` what `3.11`, `3.x`, `3.11.7` or `>=3.11` asks for?"""
    least = re.fullmatch(r">=\s*(\d+(?:\.\d+)*)", wanted)
    if least:
        return _numbers(found) >= _numbers(least[1])
    exact = re.sub(r"\.x$", "", wanted)
    if not re.fullmatch(r"\d+(?:\.\d+){0,2}", exact):
        raise MlopsError(f"actions/setup-python: the twin does not know the version {wanted!r}")
    return _numbers(found)[: len(_numbers(exact))] == _numbers(exact)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
