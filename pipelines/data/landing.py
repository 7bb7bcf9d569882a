"""Landing bucket: data files arrive under `<dataset>/` and are never changed or deleted."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.data.batch import LandingFileError, TooManyBadRowsError
from pipelines.data.glue_client import s3
from pipelines.data.reading import SUFFIXES
from pipelines.declarations.contract import MAXIMUM_QUARANTINED, Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.environment_rules import ACCOUNT_FILE
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import bucket_name
from pipelines.declarations.printable import printable
from pipelines.declarations.project import Project
from pipelines.registry import clients, store

if TYPE_CHECKING:
    from pipelines.data.validate import Summary

LANDING_FILE = "LANDING_FILE"
"""Environment variable of the ingest job: name of the only landing file to ingest."""

LANDING_ACTION = "LANDING_ACTION"
"""Environment variable of the ingest job: what to do with `LANDING_FILE`; `ingest` by default."""

DROP_REASON = "DROP_REASON"
"""Environment variable of the ingest job: why a landing file is dropped."""

LandingAction = Literal["ingest", "release", "drop"]

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class LandingFile:
    """File in the landing bucket.

    Attributes:
        key: key of the object.
        name: the key without the prefix of the dataset; printable, because everyone who may land files chooses it.
        size: size in bytes.
        etag: ETag of the object; changes when the file is replaced.
    """

    key: str
    name: str
    size: int
    etag: str


class LandingPlace(Protocol):
    """Landing bucket: an `EnvironmentDescriptor`, or a `LandingBucket`."""

    @property
    def landing_bucket(self) -> str:
        """Name of the bucket."""

    @property
    def region(self) -> str:
        """AWS region of the bucket."""


@dataclass(frozen=True)
class LandingBucket:
    """Landing bucket, known by its name only.

    Attributes:
        landing_bucket: name of the bucket.
        region: AWS region of the bucket.
    """

    landing_bucket: str
    region: str


def landing_bucket(project: Project, environment: str) -> LandingBucket:
    """Return the landing bucket of an environment in the caller's AWS account.

    Its name follows from the declarations, so that a caller who may only land files need not read the stack's state.

    Raises:
        MlopsError: the environment does not exist or ingests no data, or there are no AWS credentials.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if not project.ingested(environment):
        project.check_trains(environment)
    config = project.stack(environment).config
    try:
        account = str(clients.client("sts", config.region).get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(f"the caller's AWS account is unknown: {error}", fix=_sign_in(error, environment)) from None
    return LandingBucket(bucket_name(project.name, environment, "landing", account), config.region)


def _sign_in(error: Exception, environment: str) -> str:
    """Return what to do about an error of AWS that says that the caller is not signed in."""
    from botocore.exceptions import ClientError, ProfileNotFound

    if isinstance(error, ProfileNotFound):
        return 'write the profile into ~/.aws/config: docs/data-scientist.md, "Land data"'
    if isinstance(error, ClientError) and error.operation_name == "AssumeRole":
        return (
            f"ask an administrator to name your IAM role or user in landing_principals, for {environment}, in "
            f"{ACCOUNT_FILE} and to run the bootstrap again: docs/bootstrap.md"
        )
    return "sign in to AWS, for example with `aws sso login`"


def check_name(file: Path) -> None:
    """Check that the ingest job reads files of this name.

    Raises:
        MlopsError: the name is not valid.
    """
    if file.suffix.lower() not in SUFFIXES or not _FILE_NAME.fullmatch(file.name):
        raise MlopsError(
            f"{file} cannot be uploaded: expected a name of letters, digits, '.', '-' and '_' that ends in "
            f"one of {', '.join(SUFFIXES)}, found {file.name!r}",
            fix="rename the file" if file.suffix.lower() in SUFFIXES else "export it as CSV, JSON Lines or Parquet",
        )
    if not file.is_file():
        raise MlopsError(f"{file} cannot be uploaded: no such file", fix="check the path")


def check_file(contract: Contract, file: Path) -> Summary:
    """Check a local file against its contract, as the ingest job will, and return the result.

    Keys that are already in the table are not known here; the job finds them.

    Raises:
        LandingFileError: the file is rejected as a whole.
        MlopsError: the file has a name that the ingest job does not read, or the check failed.
    """
    from pipelines.data.reading import read_batch
    from pipelines.data.validate import validate

    check_name(file)
    with tempfile.TemporaryDirectory(prefix="land-") as folder:
        batch = read_batch(file, contract, Path(folder))
        try:
            with validate(batch, contract, Path(folder)) as checked:
                return checked.summary
        except TooManyBadRowsError as error:
            fix = f"correct the file; {MAXIMUM_QUARANTINED} in the contract is the bound"
            raise LandingFileError(error.file, error.expected, error.found, fix) from None


def upload(place: LandingPlace, dataset: str, file: Path) -> str:
    """Upload a local file to the landing bucket and return its URL (`s3://…`).

    A landing file is never replaced.

    Raises:
        AccessDeniedError: the caller may not upload.
        MlopsError: the file has a name that the ingest job does not read, or a file of that name has landed already;
            or the upload failed.
    """
    check_name(file)
    key = f"{dataset}/{file.name}"
    url = f"s3://{place.landing_bucket}/{key}"
    try:
        store.upload_new(place.landing_bucket, key, file, client=clients.client("s3", place.region))
    except store.PreconditionFailedError:
        raise MlopsError(
            f"{url} already exists: landing files are never replaced",
            fix="if the content differs, rename the file and land it again",
        ) from None
    except store.AccessDeniedError as error:
        raise store.AccessDeniedError(
            error.what,
            fix='sign in with the environment\'s landing role: docs/data-scientist.md, "Land data"',
        ) from None
    return url


def landing_files(descriptor: EnvironmentDescriptor, dataset: str) -> list[LandingFile]:
    """List the landing files of a dataset, sorted by name."""
    prefix = f"{dataset}/"
    found = [
        LandingFile(listed.key, printable(listed.key.removeprefix(prefix)), listed.size, listed.etag.strip('"'))
        for listed in store.listing(descriptor.landing_bucket, prefix, client=s3(descriptor))
        if not listed.key.endswith("/")
    ]
    return sorted(found, key=lambda file: file.name)


def download(descriptor: EnvironmentDescriptor, file: LandingFile, folder: Path) -> Path:
    """Download a landing file into a local folder and return its path, which keeps the suffix but not the name."""
    suffix = Path(file.name).suffix.lower()
    path = folder / f"landing{suffix if suffix in SUFFIXES else '.unknown'}"
    store.download(descriptor.landing_bucket, file.key, path, client=s3(descriptor))
    return path
