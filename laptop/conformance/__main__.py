"""Run the conformance tests: `python -m laptop.conformance build|run|table`. The Makefile calls it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest

from laptop.conformance.aws_site import OFFICIAL
from laptop.conformance.control_plane import KUBECONFIG
from laptop.conformance.engines import ENGINES, EngineMissing, provide, remove_build_cache
from laptop.conformance.run_record import (
    ENGINES_PROPERTY,
    REPEATED,
    ROOT,
    SELECTED,
    failed_tests,
    read_record,
    table,
    with_table,
)
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

TESTS = Path(__file__).parent

OFFICIAL_PLUGINS = ("aws", "kubernetes")

ARGO_MANIFESTS = "https://github.com/argoproj/argo-rollouts/releases/download/v{version}/install.yaml"

_INTERRUPTED = 130  # exit status after Ctrl-C, as shells give it


class CollectedEngines:
    """Pytest plugin that collects the engines that the selected tests need."""

    def __init__(self) -> None:
        self.needed: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for name, value in item.user_properties:
                if name == ENGINES_PROPERTY and isinstance(value, list):
                    self.needed.update(value)


@click.group()
def main() -> None:
    """Check the laptop against real engines."""


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(list(ENGINES)))
def build(names: tuple[str, ...]) -> None:
    """Build the engines that are missing; all of them by default."""
    problems = [problem for name in names or ENGINES if (problem := _provide(name))]
    if problems:
        raise MlopsError("not every engine could be built", fix="read the reasons above.")


@main.command()
@click.option("-k", "expression", default="", help="Run only the tests that match, as in pytest.")
@click.option("-n", "workers", default=2, show_default=True, help="Number of test processes.")
@click.option("--failed", is_flag=True, help="Run the files again that have a failed test in the last run.")
def run(expression: str, workers: int, failed: bool) -> None:
    """Find or build the engines, run the tests, and write the record.

    With --failed, the new results replace those in the record, which names the tests that had failed.
    """
    selection = ["-k", expression] if expression else []
    # Whole files: tests of a file may build on each other.
    files = [test.partition("::")[0] for test in failed_tests(read_record())] if failed else [str(TESTS)]
    tests = list(dict.fromkeys(files))
    if not tests:
        raise MlopsError("no test failed in the last run", fix="make conformance")
    collected = CollectedEngines()
    status = pytest.main(["--collect-only", "-qq", "--no-summary", *selection, *tests], plugins=[collected])
    if status:
        raise SystemExit(int(status))
    missing = [problem for name in ENGINES if name in collected.needed and (problem := _provide(name))]
    if not missing and not expression and not failed:
        remove_build_cache()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "--timeout=900",
        f"-n{workers}",
        "--dist=loadfile",
        "--durations=8",
    ]
    environ = {**os.environ, **({SELECTED: "1"} if expression else {}), **({REPEATED: "1"} if failed else {})}
    raise SystemExit(subprocess.run([*command, *selection, *tests], cwd=ROOT, env=environ, check=False).returncode)


@main.command()
def releases() -> None:
    """Run the tests of stacks and controllers on kind, with Pulumi's own plugins."""
    for name in ("pulumi", "kwok"):
        if problem := _provide(name):
            raise MlopsError(problem, fix="see the reason above.")
    for plugin in OFFICIAL_PLUGINS:
        _checked("pulumi", "plugin", "install", "resource", plugin, metadata.version(f"pulumi-{plugin}"))
    kubeconfig = ROOT / "build" / "kind.kubeconfig"
    kubeconfig.parent.mkdir(exist_ok=True)
    kind = ("--name", "mlops-conformance", "--kubeconfig", str(kubeconfig))
    _checked("kind", "create", "cluster", "--wait", "180s", *kind)
    try:
        kubectl = ("kubectl", "--kubeconfig", str(kubeconfig), "-n", "argo-rollouts")
        _checked("kubectl", "--kubeconfig", str(kubeconfig), "create", "namespace", "argo-rollouts")
        _checked(*kubectl, "apply", "--filename", ARGO_MANIFESTS.format(version=ENGINES["argo-rollouts"].version))
        _checked(*kubectl, "rollout", "status", "deployment/argo-rollouts", "--timeout=180s")
        environ = {**os.environ, SELECTED: "1", KUBECONFIG: str(kubeconfig), OFFICIAL: "1"}
        files = [TESTS / f"test_{name}.py" for name in ("stacks", "rollouts")]
        command = [sys.executable, "-m", "pytest", "-rs", "--timeout=900", "-n0"]
        status = subprocess.run([*command, *(f for f in files if f.is_file())], cwd=ROOT, env=environ, check=False)
        raise SystemExit(status.returncode)
    finally:
        _checked("kind", "delete", "cluster", *kind)


def _checked(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise MlopsError(f"{command[0]} is not on the PATH", fix=f"install {command[0]}.")
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise MlopsError(f"`{' '.join(command)}` failed with status {done.returncode}", fix="read its output above.")


@main.command("table")
@click.option("--write", is_flag=True, help="Write it into README.md.")
def show_table(write: bool) -> None:
    """Print the README's table of the last run."""
    text = table(read_record())
    if write:
        readme = ROOT / "README.md"
        write_atomically(readme, with_table(readme.read_text(), text))
    click.echo(text)


def _provide(name: str) -> str:
    """Find or build an engine, print where it is or why it is missing, and return the reason, or ""."""
    try:
        found = provide(name, click.echo)
    except EngineMissing as error:
        click.echo(f"{error}\n  the tests that need {name} are skipped", err=True)
        return error.what
    click.echo(f"{name:<24} {found.version:<12} {found.path}")
    return ""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends a build as Ctrl-C does
    try:
        main(standalone_mode=False)
    except MlopsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
