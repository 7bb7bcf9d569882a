"""The images of a working tree, in the account of the laptop."""

from __future__ import annotations

from laptop import lifecycle
from laptop.aws.cloud import Cloud
from laptop.aws.images import Context, digest, publish
from laptop.target import LaptopTarget
from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.project import Project
from pipelines.promotion.images import NAMES, build_context


def local_context(project: Project, name: str) -> Context:
    """What the image `name` is made from on this machine."""
    built = build_context(project, name)
    return Context.of(name, built.files, project.root, dockerfile=built.dockerfile)


def local_digests(project: Project) -> Images:
    """The digests that the images have on this machine, where the content of what they copy stands in for a build."""

    return Images(**{name: digest(local_context(project, name)) for name in NAMES})


def publish_image(target: LaptopTarget, project: Project, descriptor: EnvironmentDescriptor, name: str) -> str:
    """Put one image, made from `project`, into an environment's repository of the emulated account; its digest."""

    cloud = Cloud(lifecycle.find(target.home).environ_of_caller(), target.home / "aws")
    repository = getattr(descriptor.repositories, name).partition("/")[2]
    return publish(cloud, repository, local_context(project, name))


def publish_locally(target: LaptopTarget, descriptor: EnvironmentDescriptor) -> Images:
    """Put the images into an environment's repositories of the emulated account; their digests."""
    return Images(**{name: publish_image(target, target.project, descriptor, name) for name in NAMES})
