"""What a pull request would change besides releases: data contracts and infrastructure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.comment import LONGEST, cell, folded
from pipelines.promotion.repository import Repository

CONTRACT_FILES = "data-contracts/"


def contract_changes(repository: Repository, base: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Contract that a change touches → what it takes from the contract's consumers.

    Raises:
        MlopsError: a contract is wrong.
    """
    from pipelines.data.compatibility import breaking_changes

    found: dict[str, list[str]] = {}
    for name in (name for name in files if name.startswith(CONTRACT_FILES) and name.endswith(".odcs.yaml")):
        path = Path(name)
        try:
            old = parse(repository.file_at(repository.commit(base), name), Contract, path)
        except MlopsError:
            found[name] = []  # it is new, or was wrong before
            continue
        try:
            content = repository.file_at("HEAD", name)
        except MlopsError:
            found[name] = ["the contract is gone"]
            continue
        found[name] = [str(change) for change in breaking_changes(old, parse(content, Contract, path))]
    return found


def render_review(contracts: Mapping[str, Sequence[str]], previews: Mapping[str, str]) -> str:
    """The comment, in GitHub's Markdown."""
    lines = ["<!-- mlops:review -->", "### What this would change", ""]
    for name, broken in contracts.items():
        lines.append(f"- ❌ `{name}` breaks: {cell('; '.join(broken))}" if broken else f"- ✅ `{name}` breaks nothing")
    if contracts:
        lines.append("")
    if not previews:
        lines += ["No environment changes.", ""]
    for environment, text in previews.items():
        summary = next((line for line in reversed(text.splitlines()) if line.startswith("Resources:")), "no summary")
        lines += [f"**{environment}**: {cell(summary)}", "", *folded(f"Pulumi preview of {environment}", text)]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n\n_cut: too long for a comment_\n"
