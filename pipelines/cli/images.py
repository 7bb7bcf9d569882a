"""The images that pods run: `mlops images pin|publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipelines.cli.targets import LocalTarget, Target, environment_option, open_target, target_option
from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, build_context, pin_images

if TYPE_CHECKING:
    from infra.local.aws.images import Context


@click.group()
def images() -> None:
    """The training and the serving image."""


@images.command()
@environment_option
@click.option("--training", metavar="DIGEST", help="sha256:… of the training image.")
@click.option("--serving", metavar="DIGEST", help="sha256:… of the serving image.")
def pin(environment: str, training: str | None, serving: str | None) -> None:
    """Write the digests of images into Pulumi.<env>.yaml; `mlops up` then runs them."""
    project = Project.find()
    try:
        wanted = Images(training=training, serving=serving)
    except ValueError:
        raise MlopsError("an image is pinned by its digest: sha256: and 64 hexadecimal digits") from None
    changed = pin_images(project, environment, wanted)
    click.echo(f"{project.stack_file(environment).name} {'changed' if changed else 'is as it was'}")


def local_context(project: Project, name: str) -> Context:
    """What the image `name` is made from on this machine."""
    from infra.local.aws.images import Context

    built = build_context(project, name)
    return Context.of(name, built.files, project.root, dockerfile=built.dockerfile)


def local_digests(project: Project) -> Images:
    """The digests that the images have on this machine, where the content of what they copy stands in for a build."""
    from infra.local.aws.images import digest

    return Images(**{name: digest(local_context(project, name)) for name in NAMES})


def publish_locally(target: LocalTarget, descriptor: EnvironmentDescriptor) -> Images:
    """Put the images into an environment's repositories of the emulated account; their digests."""
    from infra.local import target as local_target
    from infra.local.aws.cloud import Cloud
    from infra.local.aws.images import publish

    cloud = Cloud(local_target.find(target.home).environ_of_caller(), target.home / "aws")
    found = {}
    for name in NAMES:
        repository = getattr(descriptor.repositories, name).partition("/")[2]
        found[name] = publish(cloud, repository, local_context(target.project, name))
    return Images(**found)


@images.command()
@environment_option
@target_option
def publish(environment: str, target: str) -> None:
    """Put the images of this working tree into an environment's repositories, and pin them.

    On the local target nothing is compiled: the image is a manifest that names the content of what would be copied
    into it, and its pods run in the project's own Python environment. On AWS, the workflow `images` builds and pushes.
    """
    opened: Target = open_target(target)
    if not isinstance(opened, LocalTarget):
        raise MlopsError(
            "images for AWS are built by a container engine", fix="run the workflow `images`, then `mlops images pin`"
        )
    digests = publish_locally(opened, opened.descriptor(environment))
    pin_images(opened.project, environment, digests)
    for name in NAMES:
        click.echo(f"{name:<9} {getattr(digests, name)}")
