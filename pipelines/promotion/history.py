"""What ran when, who approved it, on which data, from which commit: answered from a copy of the ledger, offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.images import replace_file
from pipelines.registry.ledger import BrokenLedgerError, Entry, Ledger, link, read_unsigned, verify_chain

FETCHED_AT_ONCE = 8


def read_history(
    folder: Path, model: str, descriptor: EnvironmentDescriptor | None, *, verify: bool = False
) -> list[Entry]:
    """The records of a model in an environment, oldest first.

    Args:
        folder: the copies of this environment's ledgers.
        model: the model's name.
        descriptor: the environment, to fetch what is new; None to use what was fetched before.
        verify: check every signature and every link; otherwise only that each record can be read.

    Raises:
        BrokenLedgerError: the ledger is not whole, or holds less than was fetched before.
        MlopsError: it cannot be read, or nothing was fetched before.
    """
    described = folder / "environment.json"
    if descriptor is not None:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(described, descriptor.model_dump_json())
        envelopes = fetch_new(folder, model, descriptor)
    else:
        if not described.is_file():
            raise MlopsError(f"no ledger was fetched into {folder} before", fix="run it once without --offline")
        descriptor = parse(described.read_bytes(), EnvironmentDescriptor, described)
        envelopes = read_copy(folder, model)
    if verify:
        return verify_chain(envelopes, descriptor, model)
    entries = [read_unsigned(content, descriptor, model, number) for number, content in enumerate(envelopes, 1)]
    link(entries, descriptor, model)
    return entries


def fetch_new(folder: Path, model: str, descriptor: EnvironmentDescriptor) -> list[bytes]:
    """All envelopes; those that the copy lacks are fetched and added to it.

    Raises:
        BrokenLedgerError: the registry holds fewer records than the copy.
    """
    known = read_copy(folder, model)
    ledger = Ledger(descriptor, model)
    newest = ledger.newest()
    if newest < len(known):
        raise BrokenLedgerError(
            f"the ledger of {model} in {descriptor.name} has {newest} records; {len(known)} were fetched before",
            fix="someone removed records: look at the object versions in the registry bucket",
        )
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        new = list(pool.map(ledger.envelope, range(len(known) + 1, newest + 1)))
    if new:
        with _copy(folder, model).open("ab") as file:
            file.write(b"".join(envelope + b"\n" for envelope in new))
    return known + new


def read_copy(folder: Path, model: str) -> list[bytes]:
    """The envelopes fetched before; a line that was cut off in the middle does not count, and is removed."""
    path = _copy(folder, model)
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return whole.splitlines()


def _copy(folder: Path, model: str) -> Path:
    return folder / f"{model}.jsonl"


def at_time(entries: Sequence[Entry], moment: datetime) -> Entry | None:
    """The record by which what was live at a moment went live; None when nothing was."""
    before = [entry for entry in entries if entry.event.result == "verified" and entry.event.at <= moment]
    return before[-1] if before and before[-1].event.live is not None else None


def describe(entry: Entry) -> str:
    """A record in a few lines, for people."""
    event = entry.event
    lines = [
        f"{entry.record.number:>5}  {event.at:%Y-%m-%d %H:%M:%S}  {event.action} {event.result}",
        f"       {event.before or 'nothing'} → {event.to}",
    ]
    if event.pull_request is not None or event.approvers or event.actor:
        request = f"pull request {event.pull_request}, " if event.pull_request is not None else ""
        approved = f"approved by {', '.join(event.approvers)}, " if event.approvers else ""
        lines.append(f"       {request}{approved}by {event.actor or 'nobody named'}")
    if event.dataset:
        lines.append(f"       data {event.dataset}, source {event.source_commit or 'unknown'}")
    if event.commit:
        lines.append(f"       deployed from {event.commit}")
    if event.reason:
        lines.append(f"       because {json.dumps(event.reason, ensure_ascii=False)}")
    return "\n".join(lines)
