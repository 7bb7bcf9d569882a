"""Executables that the Pulumi CLI finds on the PATH: the laptop's plugins."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically

LANGUAGE_HOST = "pulumi-language-python"
"""Name by which the CLI looks for its Python language host."""

AWS_PLUGIN = "pulumi-resource-aws"
"""Name by which the CLI looks for its AWS provider."""

_IMPORT_PATH = Path(__file__).resolve().parents[1]


def install(home: Path, path: str) -> Path:
    """Write the plugins of a laptop and return their folder.

    Args:
        home: folder of the laptop.
        path: the PATH on which the Pulumi CLI is looked for.
    """
    folder = home.resolve() / "bin"
    write_executable(folder / AWS_PLUGIN, "laptop.aws.provider_plugin", [str(home.resolve() / "aws")])
    install_language_host(folder, path)
    return folder


def install_language_host(folder: Path, path: str) -> bool:
    """Write the laptop's Python language host into a folder, unless the CLI has its own; then remove it.

    A release of the CLI brings a language host. A CLI that was built from its Go module does not.

    Args:
        folder: folder to write to; it is left out of the search.
        path: the PATH on which to look for `pulumi` and its language host.

    Returns:
        True if it was written.
    """
    others = os.pathsep.join(part for part in path.split(os.pathsep) if part and Path(part) != folder)
    cli = shutil.which("pulumi", path=others)
    beside = Path(cli).resolve().with_name(LANGUAGE_HOST) if cli else None
    executable = folder / LANGUAGE_HOST
    if cli is None or shutil.which(LANGUAGE_HOST, path=others) or (beside and beside.exists()):
        executable.unlink(missing_ok=True)
        return False
    write_executable(executable, "laptop.engine.language_host")
    return True


def write_executable(file: Path, module: str, arguments: Sequence[str] = ()) -> None:
    """Write a script that runs a module of the laptop with this interpreter.

    Args:
        file: the script.
        module: module to run.
        arguments: arguments before those of the caller.
    """
    # -P keeps the caller's working directory off sys.path.
    command = shlex.join([sys.executable, "-P", "-m", module, *arguments])
    script = (
        "#!/bin/sh\n"
        f"PYTHONPATH={shlex.quote(str(_IMPORT_PATH))}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        f'export PYTHONPATH\nexec {command} "$@"\n'
    )
    write_atomically(file, script)
    file.chmod(0o700)
