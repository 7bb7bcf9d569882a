"""Compare the training image that an environment runs with the working tree."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.images import content_key, key_tag, read_tags
from pipelines.registry.container_images import ImageRepository, read_image
from pipelines.targets.target import Target


@dataclass(frozen=True)
class TrainingImage:
    """The training image that an environment runs.

    Attributes:
        digest: its digest.
        commit: the commit that it was built from; None if its tags do not say.
        is_current: True if it has the files of the working tree; None if that is unknown.
        unknown: why it is unknown.
    """

    digest: str
    commit: str | None = None
    is_current: bool | None = None
    unknown: str = ""


def judge_tags(digest: str, tags: tuple[str, ...], key: str) -> TrainingImage:
    """Compare the tags of an image with the content key of the working tree."""
    commit, known = read_tags(tags)
    if known is None:
        return TrainingImage(digest, commit, None, "its tags do not name its content")
    return TrainingImage(digest, commit, key_tag(key) in tags)


def read_training_image(target: Target, environment: str) -> TrainingImage | None:
    """Describe the training image that an environment runs; None if it runs none. Read-only.

    Raises:
        MlopsError: the environment is not up.
    """
    reference = target.descriptor(environment).images.training
    if not reference:
        return None
    url, _, digest = reference.partition("@")
    try:
        tags = read_image(ImageRepository.of_url(url), digest).tags
        return judge_tags(digest, tags, content_key(target.project, "training"))
    except MlopsError as error:
        return TrainingImage(digest, None, None, error.what)


def describe_image(image: TrainingImage, environment: str) -> str:
    """Return a line that names an image and says whether the working tree has changed since."""
    built = f", built from {image.commit[:12]}" if image.commit else ""
    same = {
        True: "the working tree has the same files",
        False: "the working tree has other files",
        None: f"not compared with the working tree: {image.unknown}",
    }[image.is_current]
    return f"training image of {environment}: {image.digest[:19]}{built}; {same}"


def check_is_current(image: TrainingImage, model: str, environment: str, publishing: str) -> None:
    """Check that the working tree has not changed since an image was built.

    Args:
        image: the image.
        model: the model to train.
        environment: the environment that runs the image.
        publishing: how to publish an image of the working tree.

    Raises:
        MlopsError: it has changed.
    """
    if image.is_current is False:
        raise MlopsError(
            f"the training image of {environment} is not made from the working tree: expected the files that it was "
            f"built from, found other ones in models/, data-contracts/, pipelines/ or requirements/",
            fix=f"{publishing}. To try the working tree without an image: mlops train {model} --here. To train what is "
            "pinned: add --pinned",
        )
