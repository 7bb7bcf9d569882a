"""What a pull request would change besides releases: data contracts and infrastructure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.github.repository import Repository
from pipelines.promotion.comment import LONGEST_PREVIEW, cell, folded, whole

CONTRACT_FILES = "data-contracts/"

ENDING = ("deprecated", "retired")
"""The statuses of a contract that may go: whoever relied on it was told."""

LONGEST_PREVIEWS = 45_000
"""Characters of all previews of a comment together."""


@dataclass(frozen=True)
class Preview:
    """A preview of an environment: what it printed, and whether it failed."""

    text: str
    failed: bool

    @property
    def summary(self) -> str:
        """The line for those who read no further: what it counted, or why it failed."""
        lines = self.text.splitlines()
        if self.failed:
            return f"the preview failed: {_reason(lines) or 'see below'}"
        counted = next((at for at in reversed(range(len(lines))) if lines[at].startswith("Resources:")), None)
        if counted is None:
            return "the preview counted nothing"
        # Pulumi's own has a line a count, below; the local target's is one line.
        below = []
        for line in lines[counted + 1 :]:
            if not line.startswith("    "):
                break
            below.append(line.strip())
        return ", ".join(filter(None, [lines[counted].removeprefix("Resources:").partition(";")[0].strip(), *below]))


def _reason(lines: Sequence[str]) -> str:
    """The first error, with the first of the things it lists."""
    at = next((at for at, line in enumerate(lines) if line.strip().startswith("error:")), len(lines))
    reason = "".join(lines[at : at + 1]).strip().removeprefix("error:").strip()
    return " ".join([reason, *(line.strip() for line in lines[at + 1 : at + 2])]) if reason.endswith(":") else reason


def contract_changes(repository: Repository, base: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Contract that a change touches → what it takes from the contract's consumers.

    Raises:
        MlopsError: a contract is wrong.
    """
    from pipelines.data.compatibility import breaking_changes

    found: dict[str, list[str]] = {}
    before = repository.commit(base)
    for name in (name for name in files if name.startswith(CONTRACT_FILES) and name.endswith(".odcs.yaml")):
        path = Path(name)
        old = _contract_before(repository, before, name)
        if not repository.has_file("HEAD", name):
            announced = old is not None and old.status in ENDING
            found[name] = [] if announced else ["the contract is gone"]
            continue
        new = parse(repository.file_at("HEAD", name), Contract, path)
        found[name] = [str(change) for change in breaking_changes(old, new)] if old is not None else []
    return found


def _contract_before(repository: Repository, commit: str, name: str) -> Contract | None:
    """The contract as it was; None when it is new, or was so wrong that nobody can have relied on it."""
    if not repository.has_file(commit, name):
        return None
    try:
        return parse(repository.file_at(commit, name), Contract, Path(name))
    except DeclarationError:
        return None


def refuse_broken(contracts: Mapping[str, Sequence[str]]) -> None:
    """Refuse what contracts take from their consumers; see `contract_changes`.

    Raises:
        MlopsError: they take something.
    """
    broken = [f"{name}: {'; '.join(texts)}" for name, texts in contracts.items() if texts]
    if broken:
        raise MlopsError(
            "a data contract breaks: " + "; ".join(broken),
            fix="keep the promise, or start a new dataset beside it, to which its consumers move in their own time; "
            "a contract may go when `status: deprecated` was merged before",
        )


def render_review(contracts: Mapping[str, Sequence[str]], previews: Mapping[str, Preview]) -> str:
    """The comment, in GitHub's Markdown; shorter than GitHub's limit whatever it is made of."""
    lines = ["<!-- mlops:review -->", "### What this would change", ""]
    for name, broken in contracts.items():
        lines.append(
            f"- ❌ {cell(name)} breaks: {cell('; '.join(broken))}" if broken else f"- ✅ {cell(name)} breaks nothing"
        )
    if contracts:
        lines.append("")
    if not previews:
        lines += ["No environment changes.", ""]
    # What matters of each comes first, and each gets its share of the room.
    for environment, preview in previews.items():
        mark = "❌ " if preview.failed else ""
        lines += [f"**{cell(environment)}**: {mark}{cell(preview.summary)}", ""]
    for environment, preview in previews.items():
        longest = min(LONGEST_PREVIEW, LONGEST_PREVIEWS // len(previews))
        lines += folded(f"Pulumi preview of {environment}", preview.text.rstrip(), longest)
    return whole(lines)
