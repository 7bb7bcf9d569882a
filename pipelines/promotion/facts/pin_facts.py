"""Facts of an image that an environment is to pin, as plain values; see `facts.types`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import FreezeWindow, ImageRules
from pipelines.declarations.names import ImageName, Name
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry.container_images import ScanResult
from pipelines.registry.image_records import ImageRecord

Count = Annotated[int, Field(ge=0)]


class ImageOrigin(Declaration):
    """Where an image comes from, by its tags.

    Attributes:
        commit: the commit that it was built from; None if no tag names one.
        on_main: whether main contains the commit.
        key: the content key that its tag names; None if no tag does.
        expected: the content key of the commit; None if it is not on main.
    """

    commit: str | None
    on_main: bool
    key: str | None
    expected: str | None


class ImageTrial(Declaration):
    """Result of loading a live bundle with the inference code and the packages of the image.

    Attributes:
        rows: number of golden predictions compared.
        problem: why it does not work; empty if it does.
    """

    rows: Count
    problem: str


class PinFacts(Declaration):
    """All facts about one image that an environment is to pin.

    Attributes:
        now: when the facts were gathered.
        environment: the environment.
        image: name of the image.
        digest: the image to pin; None if the change removes the pin.
        pinned: the image that is pinned before the change; None if none is.
        changed_files: every file that the pull request changes.
        only_pins: whether the configuration of the environment differs in its pins only.
        origin: where the image comes from.
        sizes: architecture → compressed size in bytes; None if unknown.
        scans: architecture → scan result; None if unknown.
        architectures: processors of the environment's nodes.
        rules: what the environment requires of an image; None if unknown.
        live: model → the bundle that is live in the environment; None if unknown.
        trials: model → result of its live bundle with the image; None if unknown. Empty for the training image.
        promotes_from: the environment before; None for the first.
        predecessor: the record of the image in that environment; None if it never ran it, or in the first environment.
        freezes: windows during which nothing is promoted; None if they could not be read.
        unknown: name of a fact → why it could not be read.
    """

    now: Timestamp
    environment: Name
    image: ImageName
    digest: Digest | None
    pinned: Digest | None
    changed_files: tuple[str, ...]
    only_pins: bool
    origin: ImageOrigin | None
    sizes: dict[str, Count] | None
    scans: dict[str, ScanResult] | None
    architectures: tuple[str, ...]
    rules: ImageRules | None
    live: dict[Name, Digest] | None
    trials: dict[Name, ImageTrial] | None
    promotes_from: Name | None
    predecessor: ImageRecord | None
    freezes: tuple[FreezeWindow, ...] | None
    unknown: dict[str, str] = Field(default_factory=dict)

    def missing(self, fact: str) -> str:
        """Return a sentence that says why a fact is unknown."""
        return f"{fact} is unknown: {self.unknown.get(fact, 'no reason was recorded')}"
