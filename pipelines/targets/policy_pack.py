"""The policy pack that every preview and update on AWS applies."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.errors import MlopsError

PACK = Path("infra", "policies")
"""Folder of the pack, relative to the project."""

_PROJECT_FILE = "PulumiPolicy.yaml"
_IMPORT = "from infra.policies.pack import policies; print(len(policies()))"
_START_SECONDS = 60
_SET_UP = "make setup"
_RESTORE = f"git checkout -- {PACK}"


def pack_options(root: Path) -> list[str]:
    """Return the options of `pulumi preview` and `pulumi up` that apply the policy pack.

    Args:
        root: folder of the project.

    Raises:
        MlopsError: the pack cannot run, so nothing may be previewed or applied.
    """
    count_policies(root)
    return ["--policy-pack", str(root / PACK)]


@functools.cache
def count_policies(root: Path) -> int:
    """Load the pack as the Pulumi CLI does, in its virtual environment, and return its number of policies.

    Args:
        root: folder of the project.

    Raises:
        MlopsError: the pack cannot be loaded, or has no policies.
    """
    folder = root / PACK
    python = _python(folder)
    try:
        done = subprocess.run(
            [str(python), "-c", _IMPORT],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_START_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise _refused(f"it to load within {_START_SECONDS} s", "no answer", _SET_UP) from None
    except OSError as error:
        raise _refused(f"an interpreter at {python}", error.strerror or str(error), _SET_UP) from None
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        raise _refused("it to load", lines[-1] if lines else f"status {done.returncode}", _SET_UP)
    if int(done.stdout) == 0:
        raise _refused("at least one policy", "none", _RESTORE)
    return int(done.stdout)


def _python(folder: Path) -> Path:
    """Return the interpreter that the Pulumi CLI starts the pack with."""
    file = folder / _PROJECT_FILE
    if not file.is_file():
        raise _refused(f"the file {PACK / _PROJECT_FILE}", "none", _RESTORE)
    document, _ = parse_yaml(read_bytes(file), file)
    try:
        environment = folder / str(document["runtime"]["options"]["virtualenv"])
    except (KeyError, TypeError):
        raise _refused(f"runtime.options.virtualenv in {PACK / _PROJECT_FILE}", "none", _RESTORE) from None
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _refused(expected: str, found: str, fix: str) -> MlopsError:
    return MlopsError(f"the policy pack cannot run: expected {expected}, found {found}", fix=fix)
