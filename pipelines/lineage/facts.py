"""Facts of lineage, and a local copy of them for use without the account.

They come from what is signed or cannot be changed: snapshots of the tables, manifests and evidence of bundles, and the
ledger. OpenLineage events are for other tools; they expire with the logs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.timestamps import Timestamp

COPY = Path(".mlops") / "lineage.json"
"""Local copy of the facts, in the repository."""


class VersionFact(Declaration):
    """A version of a dataset, and the landing file that it added.

    Attributes:
        environment, dataset, snapshot: identify the version.
        parent: snapshot before it; None for the first, or if another engine rewrote the history.
        at: when it was committed.
        rows: number of rows; None if unknown.
        file: name of the landing file; None if another engine wrote the version.
        batch: digest of the landing file.
        contract: version of the contract that checked the rows.
    """

    environment: str
    dataset: str
    snapshot: str
    parent: str | None
    at: Timestamp
    rows: int | None
    file: str | None
    batch: str | None
    contract: str | None


class BundleFact(Declaration):
    """A bundle, and what it was made from.

    Attributes:
        environment: environment that trained it.
        model, digest: identify the bundle.
        dataset, snapshot: the dataset version that it was trained on.
        rows: number of rows of that version.
        features: columns that it reads.
        commit, run: commit and id of the first run that made it; None without verified evidence.
        trained: when that run ended; None without verified evidence.
    """

    environment: str
    model: str
    digest: str
    dataset: str
    snapshot: str
    rows: int
    features: tuple[str, ...]
    commit: str | None
    run: str | None
    trained: Timestamp | None


class PredictionFact(Declaration):
    """A batch prediction: a version of a model's dataset of predictions.

    Attributes:
        environment, model, snapshot: identify it.
        at: when it was committed.
        rows: number of rows that it added; None if unknown.
        bundle: digest of the bundle that predicted.
        file: name of the file that was predicted; None if a dataset version was.
        dataset, read: the dataset and the snapshot that were predicted; None if a file was.
    """

    environment: str
    model: str
    snapshot: str
    at: Timestamp
    rows: int | None
    bundle: str
    file: str | None = None
    dataset: str | None = None
    read: str | None = None


class ReleaseFact(Declaration):
    """A record of the ledger that took a bundle live, or ended it.

    Attributes:
        environment, model, number: identify the record.
        bundle: the bundle that is live afterwards; None if none is.
        ended: the bundle that was live before; None if none was.
        at: when.
        action: promotion, rollback or withdrawal.
        is_live: True if this is the newest such record.
    """

    environment: str
    model: str
    number: int
    bundle: str | None
    ended: str | None
    at: Timestamp
    action: Literal["promotion", "rollback", "withdrawal"]
    is_live: bool


class LineageFacts(Declaration):
    """Facts of lineage of all environments.

    Attributes:
        gathered: when they were read.
        environments: the environments, in the order of promotion.
        versions, bundles, releases, predictions: the facts, the oldest first.
        targets: model → column that it predicts, as declared when the facts were read.
    """

    format: Literal["mlops/lineage/v1"] = "mlops/lineage/v1"
    gathered: Timestamp
    environments: tuple[str, ...] = ()
    versions: tuple[VersionFact, ...] = ()
    bundles: tuple[BundleFact, ...] = ()
    releases: tuple[ReleaseFact, ...] = ()
    predictions: tuple[PredictionFact, ...] = ()
    targets: dict[str, str] = Field(default_factory=dict)


def save_facts(root: Path, facts: LineageFacts) -> Path:
    """Save the facts in a repository, and return the file."""
    path = root / COPY
    try:
        write_atomically(path, facts.model_dump_json())
    except OSError as error:
        raise MlopsError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def read_saved_facts(root: Path) -> LineageFacts:
    """Read the facts that were saved last.

    Raises:
        MlopsError: there is no copy, or it is not valid.
    """
    path = root / COPY
    fix = "run the command once without --offline"
    try:
        return LineageFacts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MlopsError(f"there is no copy of the lineage in {path}", fix=fix) from None
    except (OSError, ValueError) as error:
        raise MlopsError(f"{path} is not a copy of the lineage: {str(error).splitlines()[0]}", fix=fix) from None
