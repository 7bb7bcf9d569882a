"""Find the changes of data contracts that break consumers, in the working tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse, read, read_bytes
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github.git import Git

if TYPE_CHECKING:
    from pipelines.data.schema_compatibility import BreakingChange

CONTRACT_FILES = "data-contracts/"

ENDING = ("deprecated", "retired")
"""Statuses of a contract that may be deleted: its consumers were warned."""


@dataclass(frozen=True)
class ContractChange:
    """Effects of a contract change on its consumers.

    Attributes:
        refused: breaking changes that the contract's version does not announce.
        announced: breaking changes that it announces.
        retrain: models that read a changed column, and must be trained again.
    """

    refused: tuple[str, ...] = ()
    announced: tuple[str, ...] = ()
    retrain: tuple[str, ...] = ()


def find_contract_changes(git: Git, base: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Return the breaking changes of each changed contract that its version does not announce.

    Args:
        git: the clone, with the change checked out.
        base: the commit before the change.
        files: the files that its commits changed; changes that are not committed yet count as well.

    Returns:
        Path of a contract → breaking changes, which may be none.

    Raises:
        MlopsError: a contract is invalid.
    """
    return {name: list(change.refused) for name, change in judge_contracts(git, base, files).items()}


def judge_contracts(git: Git, base: str, files: Sequence[str]) -> dict[str, ContractChange]:
    """Judge each changed contract in the working tree; see `find_contract_changes`."""
    found: dict[str, ContractChange] = {}
    before, top = git.resolve(base), Path(git.read("rev-parse", "--show-toplevel"))
    names = sorted({*files, *git.uncommitted_files()})
    for name in (name for name in names if name.startswith(CONTRACT_FILES) and name.endswith(".odcs.yaml")):
        old = contract_before(git, before, name)
        if not (top / name).is_file():
            if git.has_file(before, name):
                announced = old is not None and old.status in ENDING
                found[name] = ContractChange() if announced else ContractChange(("the contract was deleted",))
            continue
        new = parse(read_bytes(top / name), Contract, Path(name))
        found[name] = _judge(git, before, old, new) if old is not None else ContractChange()
    return found


def _judge(git: Git, before: str, old: Contract, new: Contract) -> ContractChange:
    from pipelines.data.schema_compatibility import breaking_changes, next_major, unannounced_changes

    readers = readers_of(git, before, old.name)
    refused = unannounced_changes(old, new, {column for columns in readers.values() for column in columns})
    changes = breaking_changes(old, new)

    def described(change: BreakingChange) -> str:
        reading = [model for model, columns in readers.items() if change.column in columns]
        by = f" (read by {', '.join(describe_released(git, model) for model in reading)})" if reading else ""
        fix = "" if change.final else f"; needs version {next_major(old.version)}"
        return f"{change}{by}{fix if change in refused else ''}"

    affected = {change.column for change in changes}
    return ContractChange(
        refused=tuple(described(change) for change in refused),
        announced=tuple(described(change) for change in changes if change not in refused),
        retrain=tuple(model for model, columns in readers.items() if columns & affected),
    )


def readers_of(git: Git, before: str, dataset: str) -> dict[str, set[str]]:
    """Return the models of a dataset and their features and target, before the change or now."""
    project, found = Project(git.root), {}
    for name in project.model_names:
        path = project.model_file(name)
        relative = path.relative_to(project.root).as_posix()
        columns: set[str] = set()
        for content in (path.read_bytes(), _content(git, before, relative)):
            try:
                model = parse(content, Model, path) if content else None
            except DeclarationError:
                continue
            if model is not None and model.contract == dataset:
                columns |= {*model.features, model.target}
        if columns:
            found[name] = columns
    return found


def _content(git: Git, commit: str, name: str) -> bytes:
    return git.read_file(commit, name) if git.has_file(commit, name) else b""


def describe_released(git: Git, model: str) -> str:
    """Name a model and the environments that its release files name a bundle for."""
    environments = environments_of(git, model)
    return f"{model}, released to {' and '.join(environments)}" if environments else model


def environments_of(git: Git, model: str) -> list[str]:
    """Return the environments that a model's release files name a bundle for."""
    environments = []
    for path in sorted((Project(git.root).model_file(model).parent / "releases").glob("*.yaml")):
        try:
            release = read(path, Release)
        except DeclarationError:
            continue
        if release.bundle is not None:
            environments.append(release.environment)
    return environments


def contract_before(git: Git, commit: str, name: str) -> Contract | None:
    """Return the contract at a commit; None if it is new or was invalid, so it had no consumers."""
    if not git.has_file(commit, name):
        return None
    try:
        return parse(git.read_file(commit, name), Contract, Path(name))
    except DeclarationError:
        return None


def refuse_contract_breaks(contracts: Mapping[str, Sequence[str]]) -> None:
    """Raise an error if a contract has breaking changes; see `find_contract_changes`.

    Raises:
        MlopsError: a contract has breaking changes.
    """
    broken = [f"{name}: {'; '.join(texts)}" for name, texts in contracts.items() if texts]
    if broken:
        raise MlopsError(
            "breaking change of a data contract: " + "; ".join(broken),
            fix="keep the contract compatible; or announce the change by the version it names, and train the models "
            "that read the column again; to delete a contract, merge `status: deprecated` first",
        )
