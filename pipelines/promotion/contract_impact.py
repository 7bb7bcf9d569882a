"""Compare the contracts of the working tree with a commit, and find who reads what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.data.contract_differences import (
    ContractDifference,
    Level,
    contract_differences,
    greatest_level,
    is_announced,
    required_version,
)
from pipelines.data.schema_compatibility import UNBINDING, unannounced_changes
from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse, read_bytes
from pipelines.github.git import Git
from pipelines.lineage.facts import LineageFacts
from pipelines.promotion.contract_changes import CONTRACT_FILES, ENDING, contract_before, environments_of, readers_of


@dataclass(frozen=True)
class LiveReader:
    """A live release whose bundle reads a column, by lineage.

    Attributes:
        environment, model, bundle: identify the release.
    """

    environment: str
    model: str
    bundle: str


@dataclass(frozen=True)
class ContractImpact:
    """Effects of a contract change.

    Attributes:
        file: path of the contract.
        dataset: its name.
        before, after: its versions; None before it was added, or after it was deleted.
        differences: the differences, the breaking ones first.
        level: the part of the version that they must raise; None if there are none.
        required: the least version that announces them; None if there are none, or a draft binds nobody.
        announced: True if the new version is high enough, and the table can make every change.
        refused: True if the check of pull requests refuses it: a breaking change that its version does not announce.
        readers: column → models that have it as a feature or target.
        released: model → environments that its release files name a bundle for.
        live: column → live releases that read it, by lineage; empty without facts.
    """

    file: str
    dataset: str
    before: str | None
    after: str | None
    differences: tuple[ContractDifference, ...]
    level: Level | None
    required: str | None
    announced: bool
    refused: bool
    readers: Mapping[str, tuple[str, ...]]
    released: Mapping[str, tuple[str, ...]]
    live: Mapping[str, tuple[LiveReader, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return the impact as JSON values."""
        return asdict(self)


def find_impacts(git: Git, base: str, files: Sequence[str], facts: LineageFacts | None) -> list[ContractImpact]:
    """Compare each changed contract of the working tree with a commit.

    Args:
        git: the clone.
        base: the commit before the change.
        files: the files that commits since then changed; changes that are not committed yet count as well.
        facts: facts of lineage; None to look at the repository only.

    Raises:
        DeclarationError: a contract is not valid.
    """
    before, top = git.resolve(base), Path(git.read("rev-parse", "--show-toplevel"))
    names = sorted({*files, *git.uncommitted_files()})
    impacts = []
    for name in (each for each in names if each.startswith(CONTRACT_FILES) and each.endswith(".odcs.yaml")):
        old = contract_before(git, before, name)
        new = parse(read_bytes(top / name), Contract, Path(name)) if (top / name).is_file() else None
        if old is None and new is None:
            continue
        known = old or new
        assert known is not None
        readers = readers_of(git, before, known.name)
        released = {model: tuple(environments_of(git, model)) for model in readers}
        impacts.append(judge_impact(name, old, new, readers, released, facts))
    return impacts


def judge_impact(
    file: str,
    old: Contract | None,
    new: Contract | None,
    readers: Mapping[str, set[str]],
    released: Mapping[str, tuple[str, ...]],
    facts: LineageFacts | None,
) -> ContractImpact:
    """Judge the change of one contract.

    Args:
        file: path of the contract.
        old, new: the contract before and after; None if it does not exist.
        readers: model → columns that it reads.
        released: model → environments that it is released to.
        facts: facts of lineage, or None.
    """
    known = old or new
    assert known is not None
    differences: tuple[ContractDifference, ...] = ()
    if old is not None and new is not None:
        differences = tuple(contract_differences(old, new))
    elif old is not None:
        differences = (ContractDifference("", "the contract", "present", "deleted", breaks_consumers=True, final=True),)
    columns = sorted({column for found in readers.values() for column in found})
    level = greatest_level(differences, columns)
    binds = old is not None and old.status not in UNBINDING
    required = required_version(old.version, level) if old is not None and level is not None and binds else None
    announced = required is None or (
        new is not None
        and level is not None
        and old is not None
        and is_announced(old.version, new.version, level)
        and not any(difference.final for difference in differences)
    )
    changed = {difference.column for difference in differences}
    if "" in changed and new is None:
        changed |= set(known.columns)
    return ContractImpact(
        file=file,
        dataset=known.name,
        before=old.version if old is not None else None,
        after=new.version if new is not None else None,
        differences=differences,
        level=level,
        required=required,
        announced=announced,
        refused=_is_refused(old, new, columns),
        readers={
            column: tuple(sorted(model for model, found in readers.items() if column in found))
            for column in columns
            if column in changed
        },
        released={model: environments for model, environments in released.items() if environments},
        live={
            column: found
            for column in sorted(changed)
            if facts is not None and column and (found := live_readers(facts, known.name, column))
        },
    )


def _is_refused(old: Contract | None, new: Contract | None, read: Sequence[str]) -> bool:
    if old is None:
        return False
    if new is None:
        return old.status not in ENDING
    return bool(unannounced_changes(old, new, read))


def live_readers(facts: LineageFacts, dataset: str, column: str) -> tuple[LiveReader, ...]:
    """Return the live releases whose bundle has a column as a feature, or whose model has it as target."""
    bundles = {(bundle.model, bundle.digest): bundle for bundle in facts.bundles}
    found = []
    for release in facts.releases:
        bundle = bundles.get((release.model, release.bundle or ""))
        if not release.is_live or bundle is None or bundle.dataset != dataset:
            continue
        if column in bundle.features or facts.targets.get(release.model) == column:
            found.append(LiveReader(release.environment, release.model, bundle.digest))
    return tuple(found)


def impact_lines(impact: ContractImpact) -> list[str]:
    """Return the lines that show an impact to people."""
    if impact.before is None:
        return [f"{impact.file}: new, version {impact.after}"]
    lines = [f"{impact.file}: {impact.before} → {impact.after or 'deleted'}"]
    for difference in impact.differences:
        lines.append(f"  {difference}")
        if not (difference.breaks_consumers or difference.breaks_producers):
            continue
        if difference.final and impact.after is not None:
            lines.append("      no version allows it: the table cannot make the change")
        for model in impact.readers.get(difference.column, ()):
            environments = impact.released.get(model, ())
            to = f", released to {' and '.join(environments)}" if environments else ", not released"
            lines.append(f"      read by {model}{to}")
        for reader in impact.live.get(difference.column, ()):
            lines.append(f"      live in {reader.environment}: {reader.model} {reader.bundle}")
    if not impact.differences:
        lines.append("  nothing that a reader or a check would notice")
    elif text := requirement(impact):
        lines.append(f"  {text}")
    return lines


def requirement(impact: ContractImpact) -> str:
    """Return which version the differences require, and whether the contract has it; "" without differences."""
    if impact.after is None:
        return "requires the status deprecated first: " + ("it is not, refused" if impact.refused else "it was")
    if impact.required is not None:
        text = f"requires version {impact.required} or later ({impact.level})"
        if impact.announced:
            return f"{text}: announced"
        return f"{text}: not announced{', refused' if impact.refused else ''}; set version: {impact.required}"
    if not impact.differences:
        return ""
    return "requires no version: the contract was a draft, which binds nobody"


def impacts_json(impacts: Sequence[ContractImpact]) -> str:
    """Return impacts as JSON."""
    return json.dumps([impact.to_json() for impact in impacts], indent=2, ensure_ascii=False)
