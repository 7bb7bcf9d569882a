"""What a batch prediction is asked to predict, and with which bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, model_validator

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name

PREDICTION_REQUEST = "PREDICTION_REQUEST"
"""Environment variable of the job: a `PredictionRequest` as JSON."""


class FileInput(Declaration):
    """Parquet file in the landing bucket.

    Attributes:
        key: key of the object.
        digest: digest of its content.
    """

    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    digest: Digest


class VersionInput(Declaration):
    """Dataset version.

    Attributes:
        dataset: name of its contract.
        snapshot: id of its Iceberg snapshot.
    """

    dataset: Name
    snapshot: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]


class PredictionRequest(Declaration):
    """Request for a batch prediction.

    Attributes:
        bundle: digest of the bundle that predicts.
        file, version: what it predicts; exactly one of them.
    """

    bundle: Digest
    file: FileInput | None = None
    version: VersionInput | None = None

    @model_validator(mode="after")
    def _has_one_input(self) -> PredictionRequest:
        if (self.file is None) == (self.version is None):
            raise ValueError("either file or version; found both or neither")
        return self

    @property
    def read(self) -> str:
        """What is predicted: the digest of a file, or `<dataset>@<snapshot>`."""
        if self.file is not None:
            return self.file.digest
        assert self.version is not None
        return f"{self.version.dataset}@{self.version.snapshot}"


def requested_prediction() -> PredictionRequest:
    """Return the request that the job's environment holds.

    Raises:
        MlopsError: there is none.
        DeclarationError: the variable is not a request.
    """
    text = os.environ.get(PREDICTION_REQUEST)
    if not text:
        raise MlopsError(
            f"environment variable {PREDICTION_REQUEST}: expected what to predict, found nothing",
            fix="start the job with `mlops predict MODEL --file FILE`, which sets it",
        )
    return parse(text, PredictionRequest, Path(f"${PREDICTION_REQUEST}"))
