"""Commands for environments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import yaml

from pipelines.cli.commands import Command, Group
from pipelines.cli.options import environment_option, log, open_target, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.targets import Finding


@click.command(cls=Command)
@target_option
def doctor(target: str) -> None:
    """Check this machine and the target for missing requirements.

    Changes nothing, and can be run before anything is created.
    """
    from pipelines.targets import find_target
    from pipelines.targets.checking import guarded
    from pipelines.targets.machine import check_machine

    project = Project.find()
    of_target = find_target(target, project).findings()
    missing = _report(guarded("this machine", check_machine(project), "make setup"))
    missing += _report(guarded(f"{target} target", of_target, "see the error"))
    if missing:
        raise MlopsError(f"{missing} {'thing is' if missing == 1 else 'things are'} missing for the {target} target")


def _report(findings: Iterator[Finding]) -> int:
    """Print findings as they come, and return how many failed."""
    failed = 0
    for finding in findings:
        mark = click.style("ok     ", fg="green") if finding.ok else click.style("missing", fg="red", bold=True)
        mark = mark if finding.visible else click.style("unseen ", fg="yellow", bold=True)
        click.echo(f"{mark}  {finding.name:<22} {finding.found}")
        if not finding.ok:
            failed += 1
            click.echo(f"         fix: {finding.fix}")
    return failed


@click.command(cls=Command)
@environment_option
@target_option
def preview(environment: str, target: str) -> None:
    """Preview the changes that `up` would make."""
    open_target(target).apply("preview", environment)


@click.command(cls=Command)
@environment_option
@click.option("--details", is_flag=True, help="List each created resource; on AWS, with its properties.")
@target_option
def up(environment: str, details: bool, target: str) -> None:
    """Create or update an environment.

    Releases stay as they are: only `mlops deploy` takes a bundle live, after the gates have judged it.
    """
    from pipelines.promotion.bring_up import bring_up

    place = open_target(target)
    place.brief = not details
    bring_up(place, environment, log)


@click.command(cls=Command)
@environment_option
@click.option("--confirm", default="", metavar="NAME", help="Repeat the environment's name.")
@target_option
def destroy(environment: str, confirm: str, target: str) -> None:
    """Remove an environment that is not protected."""
    if confirm != environment:
        raise MlopsError(f"removing {environment} is not confirmed", fix=f"add --confirm {environment}")
    Project.find().check_disposable(environment)
    open_target(target).apply("destroy", environment)


@click.command(cls=Command)
@environment_option
@target_option
def refresh(environment: str, target: str) -> None:
    """Update the state of an environment from its real resources."""
    open_target(target).apply("refresh", environment)


@click.command(cls=Command)
@environment_option
@click.option("--force", is_flag=True, help="Unlock even if the holder runs, or may run.")
@target_option
def unlock(environment: str, force: bool, target: str) -> None:
    """Remove the lock that a dead process left on an environment.

    If the holder runs, or may run, the error says who it is. The next `up`, `deploy`, `refresh` or `destroy` removes
    the lock of a dead process by itself.
    """
    open_target(target).unlock(environment, log, force=force)


@click.command(cls=Command)
@environment_option
@target_option
def outputs(environment: str, target: str) -> None:
    """Print the stack outputs of an environment as JSON."""
    found = open_target(target).outputs(environment)
    if not found:
        raise MlopsError(f"{environment} has no outputs: it was never brought up", fix=f"mlops up --env {environment}")
    click.echo(json.dumps(found, indent=2))


@click.command(cls=Command)
@environment_option
@target_option
def audit(environment: str, target: str) -> None:
    """Compare an environment and what it serves with git."""
    from pipelines.promotion import audit as module

    if module.audit(open_target(target), environment, log):
        click.echo(f"{environment} matches git.")


IMAGES_RENAMED = {
    "publish": "mlops laptop publish-images",
    "repository": "mlops ci images find",
    "note": "mlops ci images note",
    "propose": "mlops ci images propose",
}
"""Former name of a command → its name now."""


@click.group(cls=Group, renamed=IMAGES_RENAMED)
def images() -> None:
    """Set the images that an environment runs."""


@images.command()
@environment_option
@click.option("--training", metavar="DIGEST", help="Digest of the training image: sha256:…")
@click.option("--serving", metavar="DIGEST", help="Digest of the serving image: sha256:…")
def pin(environment: str, training: str | None, serving: str | None) -> None:
    """Pin images by digest in the configuration of an environment.

    Changes `Pulumi.ENV.yaml`. The environment runs the images after the next `mlops up`.
    """
    from pipelines.promotion.images import parse_images, pin_images

    project = Project.find()
    wanted = {name: value for name, value in (("training", training), ("serving", serving)) if value is not None}
    changed = pin_images(project, environment, parse_images(wanted))
    click.echo(f"{project.stack_file(environment).name} {'changed' if changed else 'is unchanged'}")


@click.group(cls=Group)
def cluster() -> None:
    """Prepare the cluster of an environment."""


@cluster.command()
@environment_option
@click.option("--apply", "applies", is_flag=True, help="Apply them with KUBECONFIG, as an administrator.")
def roles(environment: str, applies: bool) -> None:
    """Print the namespaces and the roles of the deploy and preview role.

    The roles belong to Kubernetes groups. The comments at the end are the commands that put the bootstrap's roles into
    these groups.
    """
    from pipelines.declarations.spark_jobs import runs_spark_server
    from pipelines.targets.cluster_roles import access_commands, role_manifests

    project = Project.find()
    config = project.stack(environment).config
    spark = config.environment.spark_namespace if runs_spark_server(project, environment) else None
    objects = role_manifests(project.name, environment, config.environment.namespace, spark)
    commands = access_commands(project.name, environment, config.environment.cluster, config.region)
    if applies:
        from pipelines.cluster.apply_manifests import apply_manifests

        apply_manifests(objects, log)
        click.echo("Next, once for each role:")
        for command in commands:
            click.echo(f"  {command}")
        return
    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)
    for command in commands:
        click.echo(f"# {command}")
