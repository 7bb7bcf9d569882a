"""The images that pods run: `mlops images pin|publish`."""

from __future__ import annotations

from pathlib import Path
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
    wanted = digests_of({k: v for k, v in (("training", training), ("serving", serving)) if v is not None})
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


def publish_image(target: LocalTarget, project: Project, descriptor: EnvironmentDescriptor, name: str) -> str:
    """Put one image, made from `project`, into an environment's repository of the emulated account; its digest."""
    from infra.local import target as local_target
    from infra.local.aws.cloud import Cloud
    from infra.local.aws.images import publish

    cloud = Cloud(local_target.find(target.home).environ_of_caller(), target.home / "aws")
    repository = getattr(descriptor.repositories, name).partition("/")[2]
    return publish(cloud, repository, local_context(project, name))


def publish_locally(target: LocalTarget, descriptor: EnvironmentDescriptor) -> Images:
    """Put the images into an environment's repositories of the emulated account; their digests."""
    return Images(**{name: publish_image(target, target.project, descriptor, name) for name in NAMES})


@images.command()
@environment_option
@target_option
def publish(environment: str, target: str) -> None:
    """Put the images of this working tree into an environment's repositories, and pin them.

    On the local target nothing is compiled: the image is a manifest that names the content of what would be copied
    into it. Those files are kept, and its pods run them with the project's own Python environment. On AWS, the workflow
    `images` builds and pushes.
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


@images.command()
@click.argument("name", type=click.Choice(NAMES))
@environment_option
@target_option
def repository(name: str, environment: str, target: str) -> None:
    """The repository of an image in an environment; for workflows."""
    from pipelines.cli.workflow import set_output

    set_output("repository", str(getattr(open_target(target).descriptor(environment).repositories, name)))


@images.command()
@click.argument("name", type=click.Choice(NAMES))
@click.argument("digest")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
def note(name: str, digest: str, folder: Path) -> None:
    """Note the digest of an image that was built, for `images propose`."""
    checked = str(getattr(digests_of({name: digest}), name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(checked + "\n")


@images.command()
@click.option("--from", "folder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def propose(folder: Path) -> None:
    """Open, or renew, the pull request that pins the images that were built, in every environment."""
    from pipelines.promotion.forge import Forge

    project = Project.find()
    found = {path.name: path.read_text().strip() for path in folder.iterdir() if path.name in NAMES}
    digests = digests_of(found)
    changed = [project.stack_file(e) for e in project.environments if pin_images(project, e, digests)]
    if not changed:
        click.echo("every environment pins these images already; there is nothing to propose")
        return
    listed = "\n".join(f"- {name}: `{digest}`" for name, digest in sorted(found.items()))
    body = f"Merging this makes every environment run the images that were just built and attested:\n\n{listed}\n"
    request = Forge.of(project.root).propose("images", changed, "Pin the images", body)
    click.echo(f"proposed: pull request {request.number}, {request.url}")


def digests_of(found: dict[str, str]) -> Images:
    """Images from names and digests.

    Raises:
        MlopsError: one is no digest.
    """
    try:
        return Images(**found)
    except ValueError:
        raise MlopsError(f"an image is named by its digest, sha256: and 64 hexadecimal digits; found {found}") from None
