"""Read a dataset version outside the jobs: as a data frame for notebooks, or as a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.catalog import DeclaredTables, TablePlace, open_table, read_version
from pipelines.data.versions import LATEST, find_version, list_versions
from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import bucket_name, database_name
from pipelines.declarations.project import Project
from pipelines.registry import clients

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyiceberg.schema import Schema

    from pipelines.data.spark_rows import FileRows


def declared_tables(project: Project, environment: str = "") -> TablePlace:
    """Return where the tables of an environment are, in the caller's AWS account.

    In a job, its own environment. Elsewhere the names follow from the declarations, so that a notebook needs no access
    to the stack's state.

    Args:
        project: the repository.
        environment: name of the environment; the first one by default.

    Raises:
        MlopsError: the environment does not exist, or there are no AWS credentials.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if not environment and os.environ.get(VARIABLE):
        return EnvironmentDescriptor.from_environ()
    name = environment or project.environments[0]
    region = project.stack(name).config.region
    try:
        account = str(clients.client("sts", region).get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(
            f"the caller's AWS account is unknown: {error}",
            fix='sign in to AWS (aws sso login), or point the shell at the laptop: eval "$(mlops laptop env)"',
        ) from None
    lake = bucket_name(project.name, name, "lake", account)
    return DeclaredTables(name, region, lake, database_name(project.name, name))


def read_named(place: TablePlace, dataset: str, version: str = LATEST) -> tuple[pa.Table, DatasetVersion]:
    """Read all rows of a version of a dataset, in the order of their primary key.

    Args:
        place: where the table is.
        dataset: name of the contract.
        version: snapshot, tag, landing file or `latest`.

    Raises:
        MlopsError: the table or the version does not exist, or cannot be read.
    """
    with readable(place, dataset, version):
        found = find_version(list_versions(open_table(place, dataset)), version, dataset)
        return read_version(place, dataset, found.snapshot)


@contextmanager
def readable(place: TablePlace, dataset: str, version: str) -> Iterator[None]:
    """Turn errors of AWS into errors that name the version."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(
            f"version {version} of {dataset} in {place.name} cannot be read: {error}",
            fix="check that the caller may read the Glue table and its files in the lake bucket",
        ) from error


@dataclass(frozen=True)
class SparkVersion:
    """A version of a dataset, to be read on Spark.

    Attributes:
        snapshot: id of the snapshot.
        schema: columns of the table at that snapshot.
        rows: its rows, with all columns.
        rows_of: finds columns of the current table of a dataset.
    """

    snapshot: str
    schema: Schema
    rows: FileRows
    rows_of: Callable[[str, Sequence[str]], FileRows]


def read_version_on_spark(place: TablePlace, dataset: str, version: str = LATEST) -> SparkVersion:
    """Find the files of a version of a dataset; see `read_named`.

    Raises:
        MlopsError: the table or the version does not exist, or cannot be read.
    """
    from pipelines.data.spark_rows import rows_of_files, stored_types

    def rows_of(name: str, columns: Sequence[str]) -> FileRows:
        table = open_table(place, name)
        tasks = list(table.scan(selected_fields=tuple(columns)).plan_files())
        return rows_of_files(table, tasks, stored_types(table.schema().select(*columns)))

    with readable(place, dataset, version):
        table = open_table(place, dataset)
        found = find_version(list_versions(table), version, dataset)
        scan = table.scan(snapshot_id=int(found.snapshot))
        schema = scan.projection()
        rows = rows_of_files(table, list(scan.plan_files()), stored_types(schema))
    return SparkVersion(found.snapshot, schema, rows, rows_of)


def load_version(dataset: str, version: str = LATEST, *, environment: str = "") -> pd.DataFrame:
    """Read a dataset version as a data frame; see `pipelines.data.load`."""
    rows, identity = read_named(declared_tables(Project.find(), environment), dataset, version)
    frame = rows.to_pandas()
    frame.attrs["version"] = identity.model_dump()
    return frame


def write_version(rows: pa.Table, identity: DatasetVersion, path: Path) -> None:
    """Write the rows of a version to a Parquet file, with its identity in the file's metadata.

    The same version gives the same bytes. A file that cannot be written completely does not appear.

    Raises:
        MlopsError: the name does not end in .parquet, or the file cannot be written.
    """
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        raise MlopsError(f"{path} cannot be written: expected a name that ends in .parquet, found {path.name!r}")
    described = {f"mlops.{key}": str(value) for key, value in identity.model_dump().items()}
    draft = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.replace_schema_metadata(described), draft, compression="zstd")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise MlopsError(f"{path} cannot be written: {error.strerror or error}") from None
