"""Small repositories with workflows of their own, for the tests of the laptop's GitHub."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

from laptop.github.hub import Hub
from laptop.github.processes import alive, identity
from laptop.github.settings import Settings

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
APP_TOKEN = "actions/create-github-app-token@bcd2ba49218906704ab6c1aa796996da409d3eb1"
UPLOAD = "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a"
DOWNLOAD = "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"
AWS = "aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c"
PEOPLE = Settings(users=("maria", "noah"))


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files, with the indentation of the test taken off."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return folder


def hub_with(tmp_path: Path, files: Mapping[str, str], settings: Settings = PEOPLE, **options: object) -> Hub:
    """A repository of these files. A name without a folder that ends in .yml is a workflow."""
    placed = {f".github/workflows/{n}" if n.endswith(".yml") and "/" not in n else n: t for n, t in files.items()}
    hub = Hub(tmp_path / "home", **options)  # type: ignore[arg-type]
    hub.create(write(tmp_path / "source", placed), settings=settings)
    return hub


def git(folder: Path, *arguments: str) -> str:
    """Run git as a person in a clone would."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def push(clone: Path, branch: str, files: Mapping[str, str], message: str = "A change") -> str:
    """Commit files on a branch of a clone, push it, and return the commit."""
    git(clone, "switch", "--quiet", "-C", branch)
    write(clone, files)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", message)
    git(clone, "push", "--quiet", "origin", branch)
    return git(clone, "rev-parse", "HEAD")


def ends(pid: str) -> bool:
    """Has the process ended, or does it very soon? (It was sent SIGKILL.)"""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        known = identity(int(pid))
        if known.endswith((":", ":gone")) or not alive(known):
            return True
        time.sleep(0.01)
    return False
