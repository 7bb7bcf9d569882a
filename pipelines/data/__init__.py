"""Data: check landing files against their contract, and append them to Iceberg tables as dataset versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load"]


def load(dataset: str, version: str = "latest", *, environment: str = "") -> pd.DataFrame:
    """Read a dataset version as a data frame, for notebooks.

    AWS is found by the standard configuration: your profile, or the laptop after `eval "$(mlops laptop env)"`. Call it
    in a clone of the repository.

    Args:
        dataset: name of the contract.
        version: id of a snapshot, tag, name of a landing file, or `latest`.
        environment: name of the environment; the first one by default.

    Returns:
        The rows in the order of their primary key. `attrs["version"]` identifies the version: snapshot and digest.

    Raises:
        MlopsError: the dataset or the version does not exist, or cannot be read.
    """
    from pipelines.data.version_files import load_version

    return load_version(dataset, version, environment=environment)
