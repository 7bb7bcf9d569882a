"""The images that pods run: `mlops images pin|publish`."""

from __future__ import annotations

import click

from pipelines.cli.targets import LocalTarget, Target, environment_option, open_target, target_option
from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, build_context, pin_images


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


def local_digests(project: Project) -> Images:
    """The digests that the images have on this machine, where the content of what they copy stands in for a build."""
    from infra.local.aws.images import digest

    found = {name: digest(name, build_context(project, name).files, project.root) for name in NAMES}
    return Images(**found)


def publish_locally(project: Project, descriptor: EnvironmentDescriptor) -> Images:
    """Put the images into an environment's repositories of the emulated account; their digests."""
    from infra.local.aws.images import publish

    found = {}
    for name in NAMES:
        repository = getattr(descriptor.repositories, name).partition("/")[2]
        found[name] = publish(repository, name, build_context(project, name).files, project.root)
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
    digests = publish_locally(opened.project, opened.descriptor(environment))
    pin_images(opened.project, environment, digests)
    for name in NAMES:
        click.echo(f"{name:<9} {getattr(digests, name)}")
