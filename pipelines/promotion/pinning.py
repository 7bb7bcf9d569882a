"""Judge the images that a deployment is about to run, and record those that it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import get_args

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ImageName
from pipelines.declarations.project import Project
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.promotion.admission import GateRefusedError
from pipelines.promotion.attempt import Log
from pipelines.promotion.facts.gather_pin import PinChange, gather_pin
from pipelines.promotion.gates.image import how_to_pin
from pipelines.promotion.gates.pins import admits_pin, judge_pin
from pipelines.registry.image_records import record_image


class NoImageError(MlopsError):
    """An environment has a release, but no image to serve it with."""


def admit_pins(
    project: Project, git: Git, descriptors: Mapping[str, EnvironmentDescriptor], environment: str, log: Log
) -> None:
    """Judge the images that an environment pins and does not run yet.

    An image that the environment ran before is judged again, although the pull request was judged: a check of a pull
    request can be forged, and a vulnerability may have been found since.

    Args:
        project: the declarations as merged.
        git: the clone.
        descriptors: environment → descriptor, for the environments that are up.
        environment: the environment to deploy, which is up.
        log: receives progress.

    Raises:
        GateRefusedError: a gate refused an image.
        NoImageError: the environment has a release, but pins no serving image.
        MlopsError: a registry cannot be read.
    """
    here = descriptors[environment]
    pinned, file = project.stack(environment).config.environment.images, project.stack_file(environment).name
    if pinned.serving is None:
        refuse_unserved(project, environment)
    for image in get_args(ImageName):
        digest, runs = getattr(pinned, image), digest_of_reference(getattr(here.images, image))
        if digest == runs:
            continue
        # The scope was judged on the pull request.
        change = PinChange(environment, image, digest, runs, (file,), only_pins=True)
        verdicts = judge_pin(gather_pin(project, git, descriptors, change))
        log(f"{image} image: {sum(v.outcome == 'pass' for v in verdicts)} of {len(verdicts)} gates pass")
        if not admits_pin(verdicts):
            refused = [v for v in verdicts if v.outcome != "pass"]
            lines = "\n".join(f"  {v.gate}: {v.why}; {v.fix}" for v in refused)
            raise GateRefusedError(f"the {image} image {digest} may not go to {environment}:\n{lines}")


def refuse_unserved(project: Project, environment: str) -> None:
    """Refuse releases to an environment that pins no serving image, before anything is judged or recorded.

    Raises:
        NoImageError: there is such a release.
    """
    models = [name for name in project.model_names if project.release(name, environment).bundle is not None]
    if models:
        promotes_from = project.stack(environment).config.environment.promotes_from
        raise NoImageError(
            f"{environment} pins no serving image, so it cannot serve {', '.join(models)}",
            fix=f"{how_to_pin(environment, promotes_from)}; its merge deploys the release",
        )


def record_pins(descriptor: EnvironmentDescriptor, models: Iterable[str]) -> None:
    """Record the images that an environment runs after a deployment that succeeded.

    Args:
        descriptor: the environment, after the deployment.
        models: the models whose endpoints were verified.

    Raises:
        MlopsError: a record cannot be signed or written.
    """
    verified = tuple(models)
    for image in get_args(ImageName):
        digest = digest_of_reference(getattr(descriptor.images, image))
        if digest is not None:
            served = verified if image == "serving" else ()
            record_image(descriptor, image, digest, served, run_url(), datetime.now(UTC))


def digest_of_reference(reference: str | None) -> str | None:
    """Return the digest in an image reference; None for None."""
    return reference.partition("@")[2] if reference else None
