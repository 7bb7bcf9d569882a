"""Find breaking changes of data contracts in a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.github.git import Git

CONTRACT_FILES = "data-contracts/"

ENDING = ("deprecated", "retired")
"""Statuses of a contract that may be deleted: its consumers were warned."""


def find_contract_changes(git: Git, base: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Return the breaking changes of each contract among the changed files.

    Args:
        git: the clone, with the change checked out.
        base: the commit before the change.
        files: the changed files.

    Returns:
        Path of a contract → breaking changes, which may be none.

    Raises:
        MlopsError: a contract is invalid.
    """
    from pipelines.data.schema_compatibility import breaking_changes

    found: dict[str, list[str]] = {}
    before = git.resolve(base)
    for name in (name for name in files if name.startswith(CONTRACT_FILES) and name.endswith(".odcs.yaml")):
        old = _contract_before(git, before, name)
        if not git.has_file("HEAD", name):
            announced = old is not None and old.status in ENDING
            found[name] = [] if announced else ["the contract was deleted"]
            continue
        new = parse(git.read_file("HEAD", name), Contract, Path(name))
        found[name] = [str(change) for change in breaking_changes(old, new)] if old is not None else []
    return found


def _contract_before(git: Git, commit: str, name: str) -> Contract | None:
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
            fix="keep the contract compatible, or add a new dataset and move the consumers to it; "
            "to delete a contract, merge `status: deprecated` first",
        )
