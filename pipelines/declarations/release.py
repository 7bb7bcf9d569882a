"""A release: which bundle an environment runs for a model, and which it replaces."""

from __future__ import annotations

from pydantic import model_validator

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import Name


class Release(Declaration):
    """`models/<name>/releases/<environment>.yaml`.

    Attributes:
        model: the model's name.
        environment: the environment's name.
        bundle: the digest of the bundle that runs there; None until the first release.
        replaces: the bundle that must be live when this release is applied, or the release is stale; None for the
            first.
    """

    model: Name
    environment: Name
    bundle: Digest | None
    replaces: Digest | None

    @model_validator(mode="after")
    def _replaces_another(self) -> Release:
        if self.bundle is not None and self.bundle == self.replaces:
            raise ValueError("a release that replaces another bundle; found the same digest in both keys")
        if self.bundle is None and self.replaces is not None:
            raise ValueError("replaces: null while bundle is null; found a digest")
        return self
