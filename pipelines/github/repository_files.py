"""Files of the repository that depend on where it is hosted: CODEOWNERS, the bootstrap's configuration, Pulumi.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.repository_root import PROGRAM
from pipelines.declarations.token_subject import RepositoryIds, default_template, subject_of
from pipelines.github.repository_facts import CODE_OWNERS, RepositoryFacts, Unreadable
from pipelines.github.settings import PLACEHOLDER_OWNER, subject_template

ACCOUNT_FILE = Path("infra/bootstrap/Pulumi.account.yaml")
"""Configuration of the bootstrap, relative to the repository."""

_ACCOUNT = "mlops-bootstrap:account"


def own_code_owners(
    text: str, owner: str, teams: Sequence[str] | None, chosen: Mapping[str, str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return CODEOWNERS with the repository's own owners instead of the template's.

    Args:
        text: the present content. Lines without the template's owners do not change.
        owner: the organisation or user that owns the repository.
        teams: slugs of the organisation's teams; None for a user, who has no teams and owns everything.
        chosen: team of the template → `@login` or `@organisation/team` to put in its place.

    Returns:
        The new content, and the teams that the organisation does not have.
    """
    if owner.lower() == PLACEHOLDER_OWNER:
        return text, ()
    chosen = chosen or {}
    absent: set[str] = set()

    def replace(found: re.Match[str]) -> str:
        team = found["team"]
        if team in chosen:
            return chosen[team]
        if teams is None:
            return f"@{owner}"
        if team not in teams:
            absent.add(team)
        return f"@{owner}/{team}"

    lines = []
    for line in text.splitlines():
        rule, mark, comment = line.partition("#")
        changed = re.sub(rf"(?<=\s)@{PLACEHOLDER_OWNER}/(?P<team>[\w-]+)", replace, rule)
        if changed != rule:
            path, *owners = changed.split()
            width = max(len(path) + 1, len(rule) - len(rule.lstrip()) + rule.index("@"))
            changed = f"{path:<{width}}{' '.join(dict.fromkeys(owners))}" + (" " if mark else "")
        lines.append(changed + mark + comment)
    return "\n".join(lines) + ("\n" if text.endswith("\n") else ""), tuple(sorted(absent))


def declared_subject(root: Path) -> str | None:
    """Return the template of the token subject that the bootstrap is configured for; None without a configuration.

    Raises:
        MlopsError: the file is not valid YAML.
    """
    file = root / ACCOUNT_FILE
    if not file.is_file():
        return None
    document = parse_yaml(read_bytes(file), file)[0]
    account = ((document or {}).get("config") or {}).get(_ACCOUNT)
    if not isinstance(account, dict) or not isinstance(account.get("repository"), str):
        return None
    ids = account.get("repository_ids")
    carried = RepositoryIds.model_validate(ids) if ids else None
    return subject_of(account["repository"], carried, account.get("subject_template"), "{environment}")


def own_account(text: str, facts: RepositoryFacts) -> str:
    """Return the configuration of the bootstrap with the repository's name and the subject of its tokens.

    Only the lines of these values change. A subject that cannot be read, or that no role can trust, changes nothing.
    """
    template = subject_template(facts)
    if isinstance(template, Unreadable):
        return text
    name = str(facts.about["full_name"])
    ids = RepositoryIds(owner=facts.about["owner"]["id"], repository=facts.about["id"])
    if template == default_template(name, None):
        values = {"repository_ids": "null", "subject_template": "null"}
    elif template == default_template(name, ids):
        text_of_ids = f"{{owner: {ids.owner}, repository: {ids.repository}}}"
        values = {"repository_ids": text_of_ids, "subject_template": "null"}
    else:
        values = {"repository_ids": "null", "subject_template": json.dumps(template)}
    for key, value in {"repository": name, **values}.items():
        text = _with_value(text, key, value)
    return text


def _with_value(text: str, key: str, value: str) -> str:
    """Return the configuration with another value of a key. The comment on its line stays.

    A key that is absent is added below `repository`, unless its value is null.
    """
    present = re.search(rf"(?m)^ +{key}:(?P<value>[^#\n]*?)(?= *(#.*)?$)", text)
    if present is not None:
        return f"{text[: present.start('value')]} {value}{text[present.end('value') :]}"
    beside = re.search(r"(?m)^(?P<indent> +)repository: .*\n", text)
    if beside is None or value == "null":
        return text
    return f"{text[: beside.end()]}{beside['indent']}{key}: {value}\n{text[beside.end() :]}"


def own_program(text: str, backend: str) -> str:
    """Return Pulumi.yaml with the URL of the state. Its other lines do not change."""
    line = f"backend: {{url: {json.dumps(backend)}}}\n"
    text += "" if text.endswith("\n") else "\n"
    present = re.search(r"(?m)^backend:.*\n(?:[ \t]+.*\n)*", text)
    if present is None:
        return text + line
    return text[: present.start()] + line + text[present.end() :]


@dataclass(frozen=True)
class BootstrapOutputs:
    """Outputs of the bootstrap that the repository needs.

    Attributes:
        variables: `repository` or a GitHub environment → name → value.
        backend: URL of the Pulumi state.
    """

    variables: Mapping[str, Mapping[str, str]]
    backend: str


def read_outputs(text: str) -> BootstrapOutputs:
    """Return what the repository needs of the outputs of the bootstrap.

    Args:
        text: what `pulumi stack output --json` prints.

    Raises:
        MlopsError: the text is not such outputs.
    """
    fix = "pulumi stack output --json --stack account --cwd infra/bootstrap"
    try:
        outputs: Any = json.loads(text)
    except ValueError as error:
        raise MlopsError(f"outputs of the bootstrap: expected JSON, found {text[:40]!r} ({error})", fix=fix) from None
    found = outputs.get("variables") if isinstance(outputs, dict) else None
    if not isinstance(found, dict) or not all(_are_texts(values) for values in found.values()):
        raise MlopsError("outputs of the bootstrap: expected an object at `variables`, found none", fix=fix)
    backend = outputs.get("backend_url")
    if not isinstance(backend, str) or not backend:
        raise MlopsError("outputs of the bootstrap: expected a URL at `backend_url`, found none", fix=fix)
    return BootstrapOutputs({str(group): dict(values) for group, values in found.items()}, backend)


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def planned_files(
    root: Path,
    facts: RepositoryFacts,
    teams: Sequence[str] | None,
    chosen: Mapping[str, str],
    backend: str | None = None,
) -> tuple[dict[Path, str], tuple[str, ...]]:
    """Return the files of the clone that must change, each with its new content, and the teams that are absent.

    Args:
        root: the clone.
        facts: the repository.
        teams: slugs of the organisation's teams; None if the owner is a user.
        chosen: team of the template → owner to put in its place.
        backend: URL of the Pulumi state; None to leave Pulumi.yaml as it is.
    """
    owners, absent = own_code_owners(facts.code_owners, facts.owner, teams, chosen)
    account = root / ACCOUNT_FILE
    before = {root / CODE_OWNERS: facts.code_owners}
    after = {root / CODE_OWNERS: owners}
    if account.is_file():
        before[account] = account.read_text(encoding="utf-8")
        after[account] = own_account(before[account], facts)
    if backend is not None:
        program = root / PROGRAM
        before[program] = program.read_text(encoding="utf-8")
        after[program] = own_program(before[program], backend)
    return {path: text for path, text in after.items() if text and text != before[path]}, absent
