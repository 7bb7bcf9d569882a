"""Gather the facts of image pins. Read-only. A fact that cannot be read is unknown, never assumed good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, get_args

from pipelines.declarations.environment import EnvironmentDescriptor, FreezeWindow, ImageRules
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ImageName
from pipelines.declarations.project import Project
from pipelines.github.git import Git
from pipelines.promotion.facts.pin_facts import ImageOrigin, ImageTrial, PinFacts
from pipelines.promotion.image_trial import source_of, try_image
from pipelines.promotion.images import content_key, read_tags, repository_url
from pipelines.promotion.select import STACK_FILE, pin_difference
from pipelines.registry.container_images import ImageRepository, PublishedImage, ScanResult, read_image, read_scan
from pipelines.registry.evidence import verify_bundle
from pipelines.registry.image_records import ImageRecord, read_image_record
from pipelines.registry.ledger import Ledger

T = TypeVar("T")


@dataclass(frozen=True)
class PinChange:
    """A change of one image that an environment pins.

    Attributes:
        environment: the environment.
        image: name of the image.
        digest: the image pinned after the change; None if none is.
        pinned: the image pinned before it; None if none was.
        files: every file that the pull request changes.
        only_pins: whether the configuration differs in its pins only.
    """

    environment: str
    image: ImageName
    digest: str | None
    pinned: str | None
    files: tuple[str, ...]
    only_pins: bool


def read_pin_changes(git: Git, base: str, head: str) -> list[PinChange]:
    """Return the image pins that a change proposes, in the order of environments and images.

    Args:
        git: the clone.
        base: the commit or branch to merge into.
        head: the newest commit of the change.

    Raises:
        MlopsError: a commit does not exist.
    """
    files = git.changed_files(base, head)
    changes = []
    for name in files:
        match = STACK_FILE.match(name)
        found = pin_difference(git, base, head, name) if match is not None else None
        if match is None or found is None:
            continue
        for image in get_args(ImageName):
            then, now = getattr(found.before, image), getattr(found.after, image)
            if then != now:
                changes.append(PinChange(match["environment"], image, now, then, files, found.only))
    return changes


def gather_pin(
    project: Project,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: PinChange,
    *,
    now: datetime | None = None,
) -> PinFacts:
    """Gather the facts of one image that an environment is to pin.

    Args:
        project: the repository's declarations.
        git: the clone.
        descriptors: environment → descriptor, for the environments that are up.
        change: the proposed pin.
        now: the time of judgement; the current time by default.

    Raises:
        MlopsError: the environment does not exist, or no environment is up.
    """
    return PinFactGatherer(project, git, descriptors, change).gather(now or datetime.now(UTC))


class PinFactGatherer:
    """Reader of facts, one method per fact. A method raises MlopsError if its fact cannot be read.

    An environment that is not up has no live bundles.

    Args:
        project, git, descriptors, change: see `gather_pin`.

    Raises:
        MlopsError: the environment does not exist, or no environment is up.
    """

    def __init__(
        self, project: Project, git: Git, descriptors: Mapping[str, EnvironmentDescriptor], change: PinChange
    ) -> None:
        self.project, self.git, self.change, self.descriptors = project, git, change, descriptors
        self.config = project.stack(change.environment).config.environment
        if not descriptors:
            first = project.environments[0]
            raise MlopsError("no environment is up, so no image can be judged", fix=_up(first))
        self.here = descriptors.get(change.environment)
        known = self.here or next(iter(descriptors.values()))
        url = repository_url(project, change.environment, known.account, change.image)
        self.repository = ImageRepository.of_url(url)
        self._image: PublishedImage | MlopsError | None = None

    def gather(self, now: datetime) -> PinFacts:
        """Read every fact; record the reasons of those that cannot be read."""
        unknown: dict[str, str] = {}

        def read(method: Callable[[], T]) -> T | None:
            try:
                return method()
            except MlopsError as error:
                unknown[method.__name__] = error.what
                return None

        change, pins = self.change, self.change.digest is not None
        return PinFacts(
            now=now,
            environment=change.environment,
            image=change.image,
            digest=change.digest,
            pinned=change.pinned,
            changed_files=change.files,
            only_pins=change.only_pins,
            origin=read(self.origin) if pins else None,
            sizes=read(self.sizes) if pins else None,
            scans=read(self.scans) if pins else None,
            architectures=self.config.architectures,
            rules=read(self.rules),
            live=read(self.live),
            trials=read(self.trials) if pins else None,
            promotes_from=self.config.promotes_from,
            predecessor=read(self.predecessor) if pins and self.config.promotes_from else None,
            freezes=read(self.freezes),
            unknown=unknown,
        )

    def image(self) -> PublishedImage:
        """Return the image, read once."""
        if self._image is None:
            try:
                self._image = read_image(self.repository, self.change.digest or "")
            except MlopsError as error:
                self._image = error
        if isinstance(self._image, MlopsError):
            raise self._image
        return self._image

    def origin(self) -> ImageOrigin:
        """Return the commit and the content key that the image's tags name, and the key of that commit."""
        commit, key = read_tags(self.image().tags)
        on_main = commit is not None and self.git.is_on_main(commit)
        expected = None
        if commit is not None and on_main:
            with source_of(self.git, commit) as source:
                expected = content_key(Project(source), self.change.image)
        return ImageOrigin(commit=commit, on_main=on_main, key=key, expected=expected)

    def sizes(self) -> dict[str, int]:
        """Return architecture → compressed size in bytes."""
        return {architecture: image.size for architecture, image in self.image().platforms.items()}

    def scans(self) -> dict[str, ScanResult]:
        """Return architecture → scan result."""
        return {
            architecture: read_scan(self.repository, image.digest)
            for architecture, image in self.image().platforms.items()
        }

    def rules(self) -> ImageRules:
        """Return what the environment requires of an image, as declared in the change."""
        return self.config.image_rules

    def live(self) -> dict[str, str]:
        """Return model → the bundle that is live in the environment."""
        if self.here is None:
            return {}
        heads = {model: Ledger(self.here, model).head() for model in self.project.model_names}
        return {model: head.event.live for model, head in heads.items() if head is not None and head.event.live}

    def trials(self) -> dict[str, ImageTrial]:
        """Check every live bundle with the code and the packages of the image."""
        if self.change.image != "serving" or self.here is None or not (live := self.live()):
            return {}
        commit, _ = read_tags(self.image().tags)
        if commit is None or not self.git.is_on_main(commit):
            raise MlopsError("the image was not built from main, so its code is not run")
        bundles = {model: verify_bundle(self.here, model, digest, all_runs=False) for model, digest in live.items()}
        with source_of(self.git, commit) as source:
            return try_image(source, bundles)

    def predecessor(self) -> ImageRecord | None:
        """Return the record of the image in the previous environment; None if it never ran it."""
        before = self.config.promotes_from or ""
        if before not in self.descriptors:
            raise MlopsError(f"{before} is not up", fix=_up(before))
        return read_image_record(self.descriptors[before], self.change.image, self.change.digest or "")

    def freezes(self) -> tuple[FreezeWindow, ...]:
        """Return the freeze windows of the environment."""
        return self.config.freezes


def _up(environment: str) -> str:
    return f"mlops up --env {environment}"
