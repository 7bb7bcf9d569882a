"""Publish the images of a working tree to the laptop's account."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import get_args

from laptop import lifecycle
from laptop.aws.cloud import Cloud
from laptop.aws.image_content import ImageContext, digest, publish
from laptop.laptop_target import LaptopTarget
from pipelines.declarations.environment import Images
from pipelines.declarations.names import ImageName, repository_name
from pipelines.declarations.project import Project
from pipelines.promotion.images import architectures_of, build_context, content_key, key_tag


def local_context(project: Project, name: str) -> ImageContext:
    """Return the files that an image is made from."""
    built, architectures = build_context(project, name), architectures_of(project)
    return ImageContext.of(name, built.files, project.root, dockerfile=built.dockerfile, architectures=architectures)


def local_digests(project: Project) -> Images:
    """Return the digests of the images on this machine, which depend only on the files that they are made from."""
    return Images(**{name: digest(local_context(project, name)) for name in get_args(ImageName)})


def publish_image(
    target: LaptopTarget, project: Project, name: str, tag: str = "", caller: Mapping[str, str] = os.environ
) -> str:
    """Publish one image of a project to the account's repository, with a tag, and return its digest.

    Args:
        target: the laptop.
        project: the files of the image.
        name: name of the image.
        tag: its tag, or "".
        caller: environment of the caller, whose rights in the account are used.

    Raises:
        MlopsError: the laptop is not running, or the account has no repository yet.
    """
    cloud = Cloud(lifecycle.find(target.home).environ_of_caller(caller), target.home / "aws")
    return publish(cloud, repository_name(project.name, name), local_context(project, name), tag)


def publish_locally(target: LaptopTarget) -> Images:
    """Bootstrap the account if necessary, publish both images of the target's project, and return their digests.

    Raises:
        MlopsError: the laptop is not running, or the account's bootstrap failed.
    """
    from laptop.engine.display import Silence
    from laptop.stack_operations import prepare_account

    prepare_account(target.project.root, target.home, Silence())
    project = target.project
    return Images(
        **{
            name: publish_image(target, project, name, key_tag(content_key(project, name)))
            for name in get_args(ImageName)
        }
    )
