"""Show a contract to people as text."""

from __future__ import annotations

from typing import Any

from pipelines.data.checks import contract_rules, unique_groups
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract, Quality


def contract_lines(contract: Contract) -> list[str]:
    """Return the lines that show a contract: what it is for, its columns, and its rules."""
    lines = [f"{contract.name} {contract.version} ({contract.status})"]
    lines += [f"  {key}: {' '.join(str(text).split())}" for key, text in (contract.description or {}).items()]
    if owner := owner_of(contract):
        lines.append(f"  owner: {owner}")
    if contract.ingest_schedule:
        lines.append(f"  ingested: {contract.ingest_schedule} (UTC)")
    lines.append(f"  at most {contract.maximum_quarantined:g} percent of a file's rows may go to quarantine")
    rules: dict[str, list[str]] = {}
    for rule in contract_rules(contract):
        if rule.name not in ("type", "finite"):
            rules.setdefault(rule.column, []).append(f"{rule.name}: {rule.expected}")
    for group in unique_groups(contract):
        rules.setdefault(", ".join(group.columns), []).append(f"{group.name}: no two rows share it")
    lines.append("columns:")
    for name, column in contract.columns.items():
        mark = f", {column.classification}" if column.classification else ""
        hidden = " (not shown in samples)" if is_personal(column) else ""
        lines.append(f"  {name}: {column.logical_type}, stored as {column.stored_as}{mark}{hidden}")
        if column.description:
            lines.append(f"      {' '.join(column.description.split())}")
        lines += [f"      {text}" for text in rules.pop(name, [])]
        lines += [f"      {batch_rule(rule)}" for rule in column.rules if not rule.is_for_rows]
    lines += [f"  {name}: {text}" for name, texts in rules.items() for text in texts]
    lines += [f"  each file: {batch_rule(rule)}" for rule in contract.table.rules if not rule.is_for_rows]
    return lines


def batch_rule(rule: Quality) -> str:
    """Describe a rule on the whole batch: its metric and its bounds."""
    bounds = rule.model_dump(mode="json", by_alias=True, exclude_none=True)
    named = ", ".join(f"{key} {value:g}" for key, value in bounds.items() if key.startswith("mustBe"))
    return f"{rule.metric}: {named} {rule.unit}"


def owner_of(contract: Contract) -> str:
    """Return the owner that a contract names: the team's name, or its members; "" if it names none."""
    team: Any = contract.team
    if isinstance(team, dict):
        if team.get("name"):
            return str(team["name"])
        team = team.get("members")
    if isinstance(team, list):
        names = [str(each.get("name") or each.get("username")) for each in team if isinstance(each, dict)]
        return ", ".join(name for name in names if name and name != "None")
    return str(team) if isinstance(team, str) else ""
