"""Name what is missing before anything is created: `mlops doctor`."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from pipelines.cli.options import target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import Finding, find_target

FREE_DISK = 1 << 30
OLDEST_PYTHON = (3, 11)


def on_any_target(project: Project) -> Iterator[Finding]:
    """What every use of the repository needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info[:2] >= OLDEST_PYTHON, version, "install Python 3.11 or newer")
    git = shutil.which("git")
    yield Finding("git", git is not None, git or "not on the PATH", "install git")
    missing = sorted(missing_requirements(project.root / "requirements"))
    found = f"{len(missing)} missing or of another version: {', '.join(missing[:5])}" if missing else "as pinned"
    yield Finding("requirements", not missing, found, "make setup")
    free = shutil.disk_usage(project.root).free
    yield Finding("disk", free >= FREE_DISK, f"{free / 1e9:.1f} GB free", "free at least 1 GB")


def missing_requirements(folder: Path) -> Iterator[str]:
    """Pinned requirements that are not installed here in that version (those for other platforms are passed over)."""
    pinned = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^ \\;]+)(?: *; *(.*?))? *\\?$", re.MULTILINE)
    for group in ("infra", "pipelines", "test"):
        for name, version, marker in pinned.findall((folder / f"{group}.txt").read_text()):
            if marker:
                continue
            try:
                if importlib.metadata.version(name) != version:
                    yield name
            except importlib.metadata.PackageNotFoundError:
                yield name


def report(findings: Iterator[Finding], echo: Callable[[str], None]) -> int:
    """Print the findings as they come; how many are not as they must be."""
    missing = 0
    for finding in findings:
        mark = click.style("ok     ", fg="green") if finding.ok else click.style("missing", fg="red", bold=True)
        echo(f"{mark}  {finding.name:<22} {finding.found}")
        if not finding.ok:
            missing += 1
            echo(f"         fix: {finding.fix}")
    return missing


@click.command()
@target_option
def doctor(target: str) -> None:
    """Name each missing tool, permission or setting, before anything is created."""
    project = Project.find()

    def findings() -> Iterator[Finding]:
        yield from on_any_target(project)
        yield from find_target(target, project).findings()

    missing = report(findings(), click.echo)
    if missing:
        raise MlopsError(f"{missing} {'thing is' if missing == 1 else 'things are'} missing for the {target} target")
