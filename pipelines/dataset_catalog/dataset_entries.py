"""What the catalogue knows about each dataset: its contract, its versions, and the models that read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.data.catalog import MissingTableError, open_table
from pipelines.data.contract_page import owner_of
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.names import predictions_name
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset in the catalogue.

    Attributes:
        contract: its contract.
        readers: models that are trained on it.
        versions: its versions in the environment that was looked at, the newest first; empty without one.
    """

    contract: Contract
    readers: tuple[Model, ...] = ()
    versions: tuple[TableVersion, ...] = ()

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.contract.name

    @property
    def purpose(self) -> str:
        """What the data is for, on one line; "" if the contract does not say."""
        return " ".join(str((self.contract.description or {}).get("purpose") or "").split())

    @property
    def owner(self) -> str:
        """The owner; "" if the contract names none."""
        return owner_of(self.contract)

    @property
    def current(self) -> TableVersion | None:
        """The version that readers get, if an environment was looked at and has rows."""
        return next((version for version in self.versions if version.is_current), None)


def read_entries(project: Project, descriptor: EnvironmentDescriptor | None = None) -> list[DatasetEntry]:
    """Read the datasets of a repository, and the batch predictions of an environment, sorted by name.

    Args:
        project: the repository.
        descriptor: the environment whose tables to look at; None for the declarations only.

    Raises:
        MlopsError: a contract is not valid, or a table cannot be read.
    """
    readers: dict[str, list[Model]] = {}
    for name in project.model_names:
        try:
            model = project.model(name)
        except DeclarationError:
            continue
        readers.setdefault(model.contract, []).append(model)
    entries = []
    for dataset in project.dataset_names:
        versions = tuple(_versions(descriptor, dataset) or ())
        entries.append(DatasetEntry(project.contract(dataset), tuple(readers.get(dataset, ())), versions))
    for name in project.model_names:
        predicted = _versions(descriptor, predictions_name(name))
        if predicted is not None:
            entries.append(DatasetEntry(project.dataset_contract(predictions_name(name)), (), tuple(predicted)))
    return sorted(entries, key=lambda entry: entry.name)


def _versions(descriptor: EnvironmentDescriptor | None, dataset: str) -> Sequence[TableVersion] | None:
    """Return the versions of a dataset; None without an environment, or if it has no table."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return list_versions(open_table(descriptor, dataset)) if descriptor is not None else None
    except MissingTableError:
        return None
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(
            f"the table of {dataset} cannot be read: {error}", fix="check that the caller may call glue:GetTable"
        ) from error


def search_entries(entries: Iterable[DatasetEntry], text: str) -> list[tuple[DatasetEntry, list[str]]]:
    """Find the datasets that mention every word of a text, with the places that mention one.

    Names, descriptions, owners, domains, tags, classifications and readers are searched; case does not matter.
    """
    words = text.lower().split()
    found = []
    for entry in entries:
        places = {place: mention.lower() for place, mention in _mentions(entry).items() if mention}
        whole = " ".join(places.values())
        if words and all(word in whole for word in words):
            found.append(
                (entry, [place for place, mention in places.items() if any(word in mention for word in words)])
            )
    return found


def _mentions(entry: DatasetEntry) -> Mapping[str, str]:
    contract = entry.contract
    texts = {
        "name": entry.name,
        "description": " ".join(str(value) for value in (contract.description or {}).values()),
        "owner": entry.owner,
        "domain": contract.domain or "",
        "tags": " ".join(contract.tags),
        "models": " ".join(model.name for model in entry.readers),
    }
    for name, column in contract.columns.items():
        parts = (name, column.description, column.business_name, column.classification, *column.tags)
        texts[f"column {name}"] = " ".join(part for part in parts if part)
    return texts


def entry_lines(entries: Iterable[DatasetEntry]) -> list[str]:
    """Return the lines that list datasets for people."""
    lines = []
    for entry in entries:
        contract = entry.contract
        personal = sum(is_personal(column) for column in contract.columns.values())
        facts = [f"{contract.version} ({contract.status})", counted(len(contract.columns), "column")]
        facts += [f"{personal} personal"] if personal else []
        facts += [f"owner {entry.owner}"] if entry.owner else []
        if entry.current is not None:
            facts.append(f"{entry.current.rows} rows of {entry.current.at:%Y-%m-%d %H:%M} UTC")
        lines.append(f"{entry.name}  {', '.join(facts)}")
        lines += [f"    {entry.purpose}"] if entry.purpose else []
    return lines
