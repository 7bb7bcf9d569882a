"""The laptop's GitHub: `mlops github create|serve|clone|env`."""

from __future__ import annotations

import shlex
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from laptop.laptop_target import LaptopTarget
from laptop.project_copy import copy_project
from laptop.short_waits import scale_waits
from pipelines.cli.commands import Group
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from laptop.github.hub import Hub
    from laptop.github.runner.results import StepProgress


def attach(target: LaptopTarget, on_step: Callable[[StepProgress], None] = lambda progress: None) -> Hub:
    """Return the GitHub of a running laptop.

    Args:
        target: the laptop, connected.
        on_step: receives each step of a workflow run as it ends.

    Raises:
        MlopsError: the laptop is not running.
    """
    from laptop import lifecycle
    from laptop.github import hosting
    from laptop.github.command_forks import NAMES

    def build(checkout: Path, name: str, tag: str, caller: Mapping[str, str]) -> str:
        from laptop.publishing import publish_image

        return publish_image(target, Project(checkout), name, tag, caller)

    running = lifecycle.find(target.home)
    environ = {**running.environ(), **({NAMES: running.proxy} if running.delays else {})}
    return hosting.attach(target.home, environ=environ, build=build, on_step=on_step)


def host(target: LaptopTarget, hub: Hub, source: Path | None = None) -> None:
    """Host the target's project, and bootstrap the account for its workflows.

    Args:
        target: the laptop, connected.
        hub: has no repository yet.
        source: folder that becomes the first commit; that of the target's project if None.

    Raises:
        MlopsError: a repository is hosted already, or the bootstrap failed.
    """
    from laptop import lifecycle
    from laptop.github import hosting
    from laptop.stack_operations import bootstrap

    roles = bootstrap(target.project.root, target.home, hosting.REPOSITORY)
    region = lifecycle.find(target.home).region
    hosting.host(hub, source or target.project.root, region=region, roles=roles)


@click.group(cls=Group)
def github() -> None:
    """Run pull requests and workflows on this machine."""


@github.command()
def create() -> None:
    """Host the working tree of this repository on the laptop."""
    from laptop import lifecycle

    target, hub = _reach()
    time_scale = 1 / lifecycle.find(target.home).time_scale
    with tempfile.TemporaryDirectory(dir=target.home) as folder:
        # The clocks of the inference log and of the canary check cannot run faster, so what they wait for is shorter.
        copy = copy_project(target.project, Path(folder) / "project")
        shortened = scale_waits(copy, time_scale)
        for model in shortened:
            click.echo(
                f"{model}: rollout steps and soak are shorter in the hosted repository, as time runs faster here"
            )
        if shortened:
            click.echo(
                "The images of this working tree do not match it. Run the workflow `images` there before you train."
            )
        host(target, hub, copy.root)
    click.echo("Hosted. Next: mlops github serve, and in another terminal: mlops github clone FOLDER --as ada")


@github.command()
def serve() -> None:
    """Run workflows as events arrive, until Ctrl-C."""
    hub = _existing(lambda progress: click.echo(str(progress)))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo(f"Running the workflows of {hub.server.full_name}. Ctrl-C stops them.")
    hub.runner.serve(stop)
    click.echo("Stopped.")


@github.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--as", "person", required=True, metavar="LOGIN", help="User who works in the clone: ada or grace.")
def clone(folder: Path, person: str) -> None:
    """Clone the hosted repository for a user."""
    hub = _existing()
    check_user(hub, person)
    click.echo(f"cd {shlex.quote(str(hub.clone(folder.resolve(), person)))}")
    # Without it, commands in the clone would look for a laptop of the clone's own.
    click.echo(f"export MLOPS_HOME={shlex.quote(str(hub.server.folder.parent))}")


@github.command()
@click.option("--as", "person", required=True, metavar="LOGIN", help="User to act as: ada or grace.")
def env(person: str) -> None:
    """Print variables that make `gh` and `mlops` act as a user."""
    hub = _existing()
    check_user(hub, person)
    for name, value in hub.environ(person).items():
        if name == "PATH":
            click.echo(f"export PATH={shlex.quote(value.split(':')[0])}:$PATH")
        else:
            click.echo(f"export {name}={shlex.quote(value)}")


def check_user(hub: Hub, person: str) -> None:
    """Check that a login is a user of the hosted repository.

    Raises:
        MlopsError: it is not.
    """
    users = hub.server.settings.users
    if person not in users:
        raise MlopsError(
            f"--as: expected a user of the hosted repository, found {person!r}", fix=f"--as {' or --as '.join(users)}"
        )


def _reach() -> tuple[LaptopTarget, Hub]:
    target = LaptopTarget(Project.find())
    target.connect()
    return target, attach(target)


def _existing(on_step: Callable[[StepProgress], None] = lambda progress: None) -> Hub:
    target = LaptopTarget(Project.find())
    target.connect()
    hub = attach(target, on_step)
    if not hub.exists():
        raise MlopsError("no repository is hosted on the laptop's GitHub", fix="mlops github create")
    return hub
