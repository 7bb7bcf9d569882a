"""The images that pods run: `mlops images pin`."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import environment_option
from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import repository_name
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, pin_images


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


@images.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--registry", required=True, metavar="HOST", help="The account's ECR registry.")
def repository(name: str, registry: str) -> None:
    """Set the output `repository` to the URL of an image's repository."""
    from pipelines.cli.workflow import set_output

    set_output("repository", f"{registry}/{repository_name(Project.find().name, name)}")


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
    from pipelines.github import pull_requests
    from pipelines.github.gh import Gh

    project = Project.find()
    found = {path.name: path.read_text().strip() for path in folder.iterdir() if path.name in NAMES}
    digests = digests_of(found)
    changed = [project.stack_file(e) for e in project.environments if pin_images(project, e, digests)]
    if not changed:
        click.echo("every environment pins these images already; there is nothing to propose")
        return
    listed = "\n".join(f"- {name}: `{digest}`" for name, digest in sorted(found.items()))
    body = f"Merging this makes every environment run the images that were just built and attested:\n\n{listed}\n"
    request = pull_requests.propose(Gh.find(project.root), "images", changed, "Pin the images", body)
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
