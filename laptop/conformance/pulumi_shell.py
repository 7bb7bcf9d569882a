"""A shell that points at the laptop, as a person has it after `eval "$(mlops laptop env)"`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laptop.lifecycle import Laptop
from laptop.shell_environment import shell_commands

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

COMMAND_WITHIN = 600.0  # seconds

_PROGRAM = ("Pulumi*.yaml", "infra", "models", "data-contracts")


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        text: both of its outputs.
    """

    status: int
    text: str


@dataclass(frozen=True)
class PulumiShell:
    """A POSIX shell with the Pulumi CLI on its PATH.

    Attributes:
        folder: working directory.
        environ: its variables.
    """

    folder: Path
    environ: Mapping[str, str]

    @classmethod
    def at(cls, running: Laptop, folder: Path, home: Path, path: str) -> PulumiShell:
        """Open a shell with a home directory of its own.

        Args:
            running: the laptop.
            folder: working directory.
            home: home directory; Pulumi keeps its settings and local state there.
            path: the PATH, with the Pulumi CLI.
        """
        environ = {
            "HOME": str(home),
            "PULUMI_HOME": str(home / ".pulumi"),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PULUMI_SKIP_CONFIRMATIONS": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "MLOPS_HOME": str(running.home),
        }
        text = "eval " + shlex.quote("\n".join(shell_commands(running, environ))) + "; env -0"
        done = subprocess.run(["/bin/sh", "-c", text], env=environ, capture_output=True, check=True)
        return cls(folder, dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item))

    def inside(self, folder: str | Path) -> PulumiShell:
        """Return the shell in another folder."""
        return replace(self, folder=self.folder / folder)

    def having(self, **variables: str) -> PulumiShell:
        """Return the shell with more variables."""
        return replace(self, environ={**self.environ, **variables})

    def run(self, script: str) -> Done:
        """Run a script; it ends at the first command that fails.

        `pulumi login --local` means the home directory here. Pulumi would take the one in the user database, which
        is the operator's.
        """
        script = script.replace("pulumi login --local", f"pulumi login file://{self.environ['HOME']}")
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_WITHIN,
        )
        return Done(done.returncode, done.stdout)

    def type(self, script: str) -> str:
        """Run a script that must succeed; return its outputs."""
        done = self.run(script)
        assert done.status == 0, f"{script}\nended with status {done.status}:\n{done.text[-6000:]}"
        return done.text

    def json(self, command: str) -> Any:
        """Run a command that must succeed and prints JSON; other lines go to the standard error."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_WITHIN,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """Return the resources in the state of a stack, without providers."""
        exported = self.json(f"pulumi stack export --stack {stack}")["deployment"].get("resources", [])
        return [known for known in exported if not known["type"].startswith("pulumi:")]


def copy_program(folder: Path) -> Path:
    """Copy the Pulumi programs and their configuration, which commands change, and link the Python environment."""
    for pattern in _PROGRAM:
        for source in ROOT.glob(pattern):
            if source.is_dir():
                shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder)
    link_environment(folder)
    return folder


def link_environment(folder: Path) -> None:
    """Make this Python environment the one of the project in a folder."""
    (folder / ".venv").symlink_to(sys.prefix)


def path_with(folder: Path) -> str:
    """Return the PATH with a folder first."""
    return os.pathsep.join((str(folder), os.environ["PATH"]))
