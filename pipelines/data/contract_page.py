"""Show a contract to people as text."""

from __future__ import annotations

from typing import Any

from pipelines.data.checks import contract_rules, described_bounds, unique_groups
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.quality import Quality


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
        lines += [f"      {text}" for text in batch_rules_of(contract, name)]
    lines += [f"  {name or 'each row'}: {text}" for name, texts in rules.items() for text in texts]
    lines += [f"  each file: {text}" for text in batch_rules_of(contract, "")]
    return lines


def batch_rule(rule: Quality) -> str:
    """Describe a rule on the whole batch: its metric or query, its bounds, and whether it binds."""
    unit = "" if rule.unit == "percent" or rule.type != "library" else f" {rule.unit}"
    what = rule.label if rule.metric or not (rule.name or rule.id) else f"{rule.label} ({rule.query or rule.condition})"
    severity = "" if rule.binds else f" ({(rule.severity or '').strip().lower()} only)"
    bounds = described_bounds(rule)
    return f"{' '.join(what.split())}{f': {bounds}' if bounds else ''}{unit if bounds else ''}{severity}"


def batch_rules_of(contract: Contract, column: str) -> list[str]:
    """Describe the rules of a column on the whole batch, and those that do not bind; "" for the table's."""
    element = contract.columns[column] if column else contract.table
    return [batch_rule(rule) for rule in (*element.rules, *element.warnings) if not rule.is_for_rows]


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
