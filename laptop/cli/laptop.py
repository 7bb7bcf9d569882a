"""Run the laptop: `mlops laptop start|stop|status|env|publish-images`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from laptop.faults import FAULTS, NEEDS_LOAD_BALANCERS
from laptop.laptop_target import LaptopTarget, home
from pipelines.cli.commands import Group
from pipelines.cli.options import environment_option
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project


@click.group(cls=Group)
def laptop() -> None:
    """Run an AWS account and a cluster on this machine."""


@laptop.command()
@click.option("--realistic", is_flag=True, help="Be as slow, as late and as strict as AWS and GitHub.")
@click.option(
    "--delay", "settings", multiple=True, metavar="NAME=SECONDS", help="Change a delay of --realistic; can be repeated."
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=1.0, max=1000.0),
    default=1.0,
    show_default=True,
    help="How many times as fast rollout pauses and delays pass.",
)
@click.option(
    "--fork-server/--no-fork-server", default=True, help="Fork Python pods instead of starting a new Python for each."
)
def start(realistic: bool, settings: tuple[str, ...], time_scale: float, fork_server: bool) -> None:
    """Start the laptop in the background."""
    from laptop import delays, lifecycle

    if settings and not realistic:
        raise MlopsError("--delay: expected --realistic with it, found nothing", fix="add --realistic.")
    chosen = [*delays.from_environment(), *settings]
    project = Project.find()
    running = lifecycle.start(
        home(project),
        project.root,
        time_scale=1 / time_scale,
        fork_server=fork_server,
        delays=delays.realistic(chosen, time_scale=time_scale) if realistic else delays.NONE,
    )
    click.echo(f"AWS        {running.aws_endpoint}")
    click.echo(f"Kubernetes {running.kubernetes_endpoint}")
    click.echo('Point other tools at it with: eval "$(mlops laptop env)"')


@laptop.command(help=f"Inject a fault that ends by itself.\n\nNAME is one of {', '.join(FAULTS)}.")
@click.argument("name", type=click.Choice(tuple(FAULTS)), metavar="NAME")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds until it ends.")
def fault(name: str, seconds: float) -> None:
    from laptop import lifecycle
    from laptop.faults import Faults

    running = lifecycle.find(home(Project.find()))
    if name in NEEDS_LOAD_BALANCERS and not running.delays:
        raise MlopsError(
            f"fault {name}: expected a laptop with load balancers as AWS runs them, found another",
            fix="start it with `mlops laptop start --realistic`.",
        )
    Faults(running.home).inject(name, seconds)
    click.echo(f"{FAULTS[name]}, for {seconds:g} s.")


@laptop.command("pass-days")
@click.argument("days", type=click.IntRange(1, 3650))
@environment_option
def pass_days_command(days: int, environment: str) -> None:
    """Let days pass: requests, reports and decisions become older."""
    from laptop.passing_days import pass_days

    target = LaptopTarget(Project.find())
    target.connect()
    moved = pass_days(target.descriptor(environment), days)
    click.echo(f"{days} days have passed in {environment}: {moved} records became older.")


@laptop.command()
def stop() -> None:
    """Stop the laptop and discard its account, stacks and pull requests."""
    from laptop import lifecycle

    folder = home(Project.find())
    try:
        lifecycle.find(folder)
        said = "The laptop is stopped. Its account and stacks are discarded."
    except MlopsError:
        said = f"No laptop was running (looked in {folder})."
    hosted = (folder / lifecycle.HOSTED).is_dir()
    lifecycle.stop(folder)
    click.echo(said)
    if hosted:
        kept = folder / lifecycle.SET_ASIDE / "repository.git"
        click.echo(f"Its GitHub is discarded, too. What was pushed there is in {kept} until the next stop.")


@laptop.command()
def status() -> None:
    """Show the laptop's status, its endpoints and what runs on it."""
    from laptop import lifecycle

    click.echo(str(lifecycle.status(home(Project.find()))))


@laptop.command()
@click.option("--administrator", is_flag=True, help="With all rights in the account; needed on a realistic laptop.")
@click.option("--inside-vpc", is_flag=True, help="Reach load balancers as from inside of the private network.")
@click.option(
    "--security-group",
    "security_groups",
    multiple=True,
    metavar="SG",
    help="Security group of the shell inside of it; can be repeated.",
)
def env(administrator: bool, inside_vpc: bool, security_groups: tuple[str, ...]) -> None:
    """Print variables that point Pulumi, kubectl and the AWS CLI at it."""
    from laptop import lifecycle
    from laptop.shell_environment import shell_commands

    if security_groups and not inside_vpc:
        raise MlopsError("--security-group: expected --inside-vpc with it, found nothing", fix="add --inside-vpc.")
    for group in security_groups:
        if not re.fullmatch(r"sg-[0-9a-f]{8,17}", group):
            raise MlopsError(
                f"security group {group!r}: expected sg- and 8 to 17 hexadecimal digits", fix="correct it."
            )
    running = lifecycle.find(home(Project.find()))
    commands = shell_commands(
        running, os.environ, administrator=administrator, inside_vpc=inside_vpc, security_groups=security_groups
    )
    click.echo("\n".join(commands))


@laptop.command()
def bootstrap() -> None:
    """Apply infra/bootstrap, and set up environments on the laptop's GitHub.

    The first `mlops up` of an environment does the same for the account. Repeat it after you add or remove an
    environment, or make it disposable. To use the Pulumi CLI, follow docs/bootstrap.md instead.
    """
    from laptop import stack_operations
    from laptop.cli.github import attach
    from laptop.github import hosting
    from laptop.laptop_target import LaptopTarget

    target = LaptopTarget(Project.find())
    target.connect()
    hub, before = attach(target), stack_operations.deploy_roles(target.home)
    roles = stack_operations.bootstrap(target.project.root, target.home, hub.server.full_name if hub.exists() else None)
    click.echo("The account is bootstrapped.")
    for name in sorted(before.keys() - roles.deploy.keys()):
        click.echo(f"removed: the deploy role of {name}, {before[name]}")
    if hub.exists():
        for name in hosting.add_environments(hub, roles):
            click.echo(f"GitHub: environment {name}, its role, and the key of the app")
        for name in hosting.removed_environments(hub, roles):
            click.echo(f"GitHub: environment {name} has no role any more and still holds the key of the app")
            click.echo(f"  fix: gh api -X DELETE repos/{hub.server.full_name}/environments/{name}")


@laptop.command("export-stack")
@click.argument("stack")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="File to write; standard output if none.")
def export_stack(stack: str, file: Path | None) -> None:
    """Export the state of a stack for `pulumi stack import`.

    STACK is an environment, or `account` for the bootstrap. PULUMI_CONFIG_PASSPHRASE encrypts the secrets in it.
    """
    from laptop import stack_operations

    project = Project.find()
    passphrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
    document = stack_operations.export_stack(project.root, home(project), stack, passphrase)
    text = json.dumps(document, indent=4) + "\n"
    if file is None:
        click.echo(text, nl=False)
    else:
        write_atomically(file, text)
        click.echo(f"{file}: {len(document['deployment']['resources'])} resources")


@laptop.command("publish-images")
@environment_option
def publish_images(environment: str) -> None:
    """Publish the images of this working tree, and pin them.

    Nothing is built: an image is a manifest that lists the digests of the files that a build would copy. Pods run
    those files in the Python environment of this project. On AWS, the workflow `images` builds and pushes.
    """
    from laptop.publishing import publish_locally
    from pipelines.promotion.images import NAMES, pin_images

    target = LaptopTarget(Project.find())
    target.connect()
    digests = publish_locally(target)
    pin_images(target.project, environment, digests)
    for name in NAMES:
        click.echo(f"{name:<9} {getattr(digests, name)}")
