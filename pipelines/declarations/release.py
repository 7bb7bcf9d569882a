"""Release: the bundle that an environment runs for a model, and the one it replaces."""

from __future__ import annotations

from pydantic import model_validator

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import Name


class Release(Declaration):
    """`models/<name>/releases/<environment>.yaml`.

    Attributes:
        model: name of the model.
        environment: name of the environment.
        bundle: digest of the bundle to run; None before the first release, and after the model was withdrawn.
        replaces: digest of the bundle that must be live when the release is applied, else the release is stale; None
            for the first release. Without a bundle, the one that is withdrawn: the endpoint is removed.
    """

    model: Name
    environment: Name
    bundle: Digest | None
    replaces: Digest | None

    @model_validator(mode="after")
    def _replaces_another(self) -> Release:
        if self.bundle is not None and self.bundle == self.replaces:
            raise ValueError("bundle and replaces to differ; found the same digest")
        return self
