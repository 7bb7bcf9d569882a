"""Commands that workflows run: `mlops ci`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Group
from pipelines.cli.options import environment_option, log, open_target, target_option, timed_log, write_output
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import Target, find_target

if TYPE_CHECKING:
    from pipelines.registry.container_images import ImageRepository

IMAGES = ("training", "serving")


@click.group(cls=Group)
def ci() -> None:
    """Commands that workflows run."""
    from pipelines.github.workflow_run import refuse_enterprise_server

    refuse_enterprise_server()


@ci.group(cls=Group)
def select() -> None:
    """Select what a change affects."""


@select.command()
@click.option("--base", default="", metavar="COMMIT", help="The commit before the change; default: select all.")
@click.option("--env", "environment", default="", metavar="NAME", help="Select this environment only.")
def environments(base: str, environment: str) -> None:
    """Print the environments to deploy, in promotion order, as JSON."""
    from pipelines.github.git import Git
    from pipelines.promotion.select import select_environments

    project = Project.find()
    chosen = select_environments(project, Git(project.root), base=base, environment=environment)
    write_output("environments", json.dumps(chosen))


@select.command()
@click.option("--base", required=True, metavar="COMMIT", help="The commit that the change would be merged into.")
def changes(base: str) -> None:
    """Print what the gates judge in a change, and which tests it can affect."""
    from pipelines.github.git import Git
    from pipelines.promotion.select import select_changes
    from pipelines.promotion.select_tests import select_tests

    root = Project.find().root
    changed = select_changes(Git(root), base)
    tests = select_tests(changed.other, lambda path: (root / path).exists(), listed_environments=changed.lists)
    write_output("releases", json.dumps(changed.releases))
    write_output("pins", json.dumps(changed.pins))
    write_output("judged", json.dumps(bool(changed.releases or changed.pins)))
    write_output("code", json.dumps(bool(changed.other)))
    write_output("tests", " ".join(tests.paths))
    write_output("types", json.dumps(bool(changed.other) and tests.types))


event_option = click.option(
    "--event",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the repository_dispatch event.",
)


@select.command()
@click.option("--base", default="", metavar="COMMIT", help="The commit before the change; default: select all.")
@click.option("--model", default="", metavar="NAME", help="Select this model only.")
def models(base: str, model: str) -> None:
    """Print the models to train, as JSON."""
    from pipelines.github.git import Git
    from pipelines.promotion.select import select_models

    project = Project.find()
    write_output("models", json.dumps(select_models(project, Git(project.root), base=base, model=model)))


def _number_or_none(context: click.Context, option: click.Parameter, value: str) -> int | None:
    """Parse a number; an empty text is None, because a workflow passes one outside a pull request."""
    return int(click.INT(value, option, context)) if value else None


@ci.command()
@click.option("--base", required=True, metavar="COMMIT", help="The commit that the change would be merged into.")
@click.option(
    "--pull-request",
    "number",
    default="",
    callback=_number_or_none,
    metavar="NUMBER",
    help="Pull request to comment on; empty in a merge queue.",
)
@target_option
def judge(base: str, number: int | None, target: str) -> None:
    """Run the gates on the releases and pins of the checked-out change."""
    from pipelines.promotion.judge import judge_change

    judge_change(open_target(target), base, number, click.echo)
    click.echo("Every gate passes.")


@ci.command()
@click.option("--base", required=True, metavar="COMMIT", help="The commit that the change would be merged into.")
@click.option("--pull-request", "number", required=True, type=int, metavar="NUMBER", help="Comment the review there.")
@target_option
def review(base: str, number: int, target: str) -> None:
    """Comment with previews and breaking contract changes."""
    from pipelines.promotion.review import review_change

    review_change(open_target(target), base, number, click.echo)


@ci.command()
@environment_option
@target_option
def propose_next(environment: str, target: str) -> None:
    """Propose this environment's releases and images to the next ones."""
    from pipelines.promotion import propose

    propose.propose_next(open_target(target), environment, log)


@ci.command()
@event_option
@target_option
def respond(event: Path, target: str) -> None:
    """Handle an alarm: retrain on drift, roll back on a breach."""
    from pipelines.monitoring.alarm import read_declared_alarm
    from pipelines.promotion import respond as module

    alarm = read_declared_alarm(Project.find(), event.read_bytes())
    module.respond(_use_cluster(alarm.environment, target), alarm, timed_log())


@ci.command()
@event_option
def refuse_alarm(event: Path) -> None:
    """Fail with the reason why the workflow respond refused an alarm."""
    from pipelines.github.alarm_workflow import RESPOND
    from pipelines.monitoring.alarm import read_declared_alarm

    alarm = read_declared_alarm(Project.find(), event.read_bytes())
    raise MlopsError(
        f"the alarm about {alarm.model} in {alarm.environment} was not answered: expected the environment in the list "
        f"of {RESPOND}, found it missing",
        fix="run mlops validate, which says what to write",
    )


@ci.command()
@click.option("--models", required=True, metavar="NAMES", help="Names of the models, separated by spaces.")
def request_training(models: str) -> None:
    """Start the workflow `train` for models that have new data."""
    from pipelines.promotion import request_training as module

    module.request_training(Project.find(), models.split(), log)


@ci.command()
@environment_option
@target_option
@click.option(
    "--install-engine",
    is_flag=True,
    envvar="MLOPS_INSTALL_ENGINE",
    help="First install Pulumi's providers, if they are missing. [env: MLOPS_INSTALL_ENGINE]",
)
def use_cluster(environment: str, target: str, install_engine: bool) -> None:
    """Make later steps use an environment's cluster and region."""
    _use_cluster(environment, target, install_engine=install_engine)
    click.echo(f"using the cluster of {environment} on {target}")


def _use_cluster(environment: str, target: str, *, install_engine: bool = False) -> Target:
    """Open a target and make this process and later steps use an environment's cluster and region."""
    from pipelines.github.workflow_run import add_path, set_variable

    add_path(Path.home() / ".pulumi" / "bin")
    if install_engine:  # in one process: starting Python takes about as long as all of this
        find_target(target, Project.find()).install_engine(log)
    opened = open_target(target)
    opened.reach_cluster(environment)
    region = opened.project.stack(environment).config.region
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        set_variable(name, region)
    return opened


@ci.command()
def recheck() -> None:
    """Run the gates again for pull requests that may pass without a change."""
    from pipelines.promotion import recheck as module

    module.recheck(Project.find(), log)


@ci.command()
def engine_version() -> None:
    """Print the pinned version of Pulumi."""
    from pipelines.targets.aws import engine_versions

    write_output("pulumi", engine_versions(Project.find().root)["pulumi"])


@ci.group(cls=Group)
def images() -> None:
    """Publish images that a workflow built."""


registry_option = click.option("--registry", required=True, metavar="HOST", help="The account's ECR registry.")


@images.command()
@click.argument("name", type=click.Choice(IMAGES))
@registry_option
@click.option("--commit", envvar="GITHUB_SHA", default="", metavar="COMMIT", help="Commit to build. [env: GITHUB_SHA]")
@click.option("--run", envvar="GITHUB_RUN_ID", default="0", help="Id of the workflow run. [env: GITHUB_RUN_ID]")
@click.option("--attempt", envvar="GITHUB_RUN_ATTEMPT", default="1", help="Its attempt. [env: GITHUB_RUN_ATTEMPT]")
def find(name: str, registry: str, commit: str, run: str, attempt: str) -> None:
    """Print what an image needs to be built, and its digest if it exists.

    An image with the same content is not built again. Prints the repository, the tag to push, the platforms, and the
    digest; the digest is empty if the image has to be built.
    """
    from pipelines.promotion.images import architectures_of, build_tag, content_key, key_tag
    from pipelines.registry.container_images import find_image

    project = Project.find()
    where = _repository(project, name, registry)
    found = find_image(where, key_tag(content_key(project, name)))
    platforms = ",".join(f"linux/{architecture}" for architecture in architectures_of(project))
    url = f"{registry}/{where.name}"
    for key, value in (
        ("repository", url),
        ("tag", f"{url}:{build_tag(commit, run, attempt)}"),
        ("platforms", platforms),
        ("digest", found or ""),
    ):
        write_output(key, value)


@images.command()
@click.argument("name", type=click.Choice(IMAGES))
@click.argument("digest")
@registry_option
def mark(name: str, digest: str, registry: str) -> None:
    """Tag a complete image with its content, so that it is found again."""
    from pipelines.promotion.images import content_key, key_tag
    from pipelines.registry.container_images import tag_image

    project = Project.find()
    tag = key_tag(content_key(project, name))
    tag_image(_repository(project, name, registry), digest, tag)
    click.echo(f"{digest} has the tag {tag}")


def _repository(project: Project, name: str, registry: str) -> ImageRepository:
    from pipelines.declarations.names import repository_name
    from pipelines.registry.container_images import ImageRepository

    return ImageRepository.of_url(f"{registry}/{repository_name(project.name, name)}")


@images.command()
@click.argument("name", type=click.Choice(IMAGES))
@click.argument("digest")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to, one file per image.",
)
def note(name: str, digest: str, folder: Path) -> None:
    """Write the digest of a built image into a folder."""
    from pipelines.promotion.images import parse_images

    parse_images({name: digest})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(digest + "\n")


@images.command()
@click.option(
    "--from",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that `ci images note` wrote.",
)
def propose(folder: Path) -> None:
    """Open or update the pull request that pins built images."""
    from pipelines.promotion.images import parse_images
    from pipelines.promotion.propose import propose_images

    project = Project.find()
    found = {path.name: path.read_text().strip() for path in folder.iterdir() if path.name in IMAGES}
    propose_images(project, parse_images(found), project.environments[0], "They were just built and attested.", log)


@ci.command("token-subject")
def token_subject() -> None:
    """Print the subject of this job's OIDC token, which roles trust."""
    from pipelines.github.job_token import read_subject

    click.echo(f"The subject of this job's token is {read_subject()}")
    click.echo("The role must trust it: repository_ids or subject_template in infra/bootstrap/Pulumi.account.yaml.")
