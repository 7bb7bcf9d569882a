"""Read the history of a model from a local copy of its ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry.ledger import BrokenLedgerError, Entry, Ledger, link, read_entry, read_unsigned
from pipelines.registry.ledger_witnesses import check_ledger

FETCHED_AT_ONCE = 8


def read_history(
    folder: Path, model: str, descriptor: EnvironmentDescriptor | None, *, verify: bool = False
) -> list[Entry]:
    """Return the ledger entries of a model in an environment, oldest first.

    Args:
        folder: folder with the copies of this environment's ledgers.
        model: the model's name.
        descriptor: the environment, to fetch new records first; None to stay offline.
        verify: verify every signature and every link. Without it, records of the copy are only parsed, and each must
            name its predecessor. New records are always verified.

    Raises:
        BrokenLedgerError: the ledger has gaps or invalid records, or differs from the copy.
        MlopsError: the ledger cannot be read, or the copy is missing or belongs to another environment.
    """
    described = folder / "environment.json"
    before = parse(described.read_bytes(), EnvironmentDescriptor, described) if described.is_file() else None
    if descriptor is None and before is None:
        raise MlopsError(f"there is no copy of the ledger in {folder}", fix="run it once without --offline")
    current = descriptor or before
    assert current is not None
    if before is not None and before.trusted_keys.get(current.name) != current.trusted_keys.get(current.name):
        raise MlopsError(
            f"the copy in {folder} is not signed with the key of {current.name}",
            fix=f"if {current.name} was recreated, delete the folder; otherwise find out who replaced its key",
        )
    known = read_copy(folder, model)
    fetched: list[Entry] = []
    times: dict[int, datetime] = {}
    if descriptor is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(described, descriptor.model_dump_json())
        ledger = Ledger(descriptor, model)
        times = ledger.stored_times()
        fetched = fetch_new(folder, ledger, max(times, default=0), known)
    read = read_entry if verify else read_unsigned
    try:
        entries = [read(content, current, model, number) for number, content in enumerate(known, 1)]
        link(entries, current, model)
    except BrokenLedgerError as error:
        fix = f"if only the copy is damaged, delete {_copy(folder, model)} and run this again; {error.fix}"
        raise BrokenLedgerError(error.what, fix=fix.rstrip("; ")) from None
    return [replace(entry, stored=times.get(entry.record.number)) for entry in entries + fetched]


def check_history(
    descriptors: Mapping[str, EnvironmentDescriptor], environment: str, model: str, entries: Sequence[Entry]
) -> None:
    """Check that a history is the whole ledger: none of its records was deleted or replaced.

    Args:
        descriptors: environment → descriptor, for the environments that are up.
        environment: the environment whose ledger it is.
        model: the model's name.
        entries: the history, oldest entry first.

    Raises:
        BrokenLedgerError: a record was deleted or replaced, or the history lacks some.
        MlopsError: a registry cannot be read.
    """
    check_ledger(descriptors, environment, model)
    head = Ledger(descriptors[environment], model).head()
    if head is not None and head.digest not in {entry.digest for entry in entries}:
        raise BrokenLedgerError(
            f"the history of {model} in {environment} ends at record {len(entries)}: expected {head.record.number}",
            fix="run it again; a record was written during the read",
        )


def fetch_new(folder: Path, ledger: Ledger, newest: int, known: Sequence[bytes]) -> list[Entry]:
    """Fetch the records that the copy lacks, verify them, and add them to the copy.

    Args:
        folder: folder with the copies of this environment's ledgers.
        ledger: the ledger.
        newest: number of its newest record.
        known: the envelopes in the copy.

    Returns:
        The new entries.

    Raises:
        BrokenLedgerError: the registry has fewer records than the copy, or a different record in the last place of the
            copy; or a new record is invalid or does not follow its predecessor.
    """
    descriptor, model = ledger.descriptor, ledger.model
    if newest < len(known):
        raise BrokenLedgerError(
            f"the ledger of {model} in {descriptor.name} has {newest} records; the copy has {len(known)}",
            fix="someone removed records: look at the object versions in the registry bucket",
        )
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        # The last known record is fetched again: it links to all earlier ones.
        stored = pool.map(ledger.stored, range(max(len(known), 1), newest + 1))
        envelopes = [each.content for each in stored]
    if known and envelopes.pop(0) != known[-1]:
        raise BrokenLedgerError(
            f"record {len(known)} of {model} in {descriptor.name} differs from the copy",
            fix="someone replaced records: look at the object versions in the registry bucket",
        )
    entries = [
        read_entry(content, descriptor, model, number) for number, content in enumerate(envelopes, len(known) + 1)
    ]
    link(entries, descriptor, model, after=digest_of_bytes(known[-1]) if known else None)
    if envelopes:
        write_atomically(_copy(folder, model), b"".join(content + b"\n" for content in (*known, *envelopes)))
    return entries


def read_copy(folder: Path, model: str) -> list[bytes]:
    """Return the envelopes in the copy; an incomplete last line is ignored."""
    path = _copy(folder, model)
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _copy(folder: Path, model: str) -> Path:
    return folder / f"{model}.jsonl"


def at_time(entries: Sequence[Entry], moment: datetime) -> Entry | None:
    """Return the entry of the bundle that was live at a given time; None if none was live."""
    changed = ("verified", "withdrawn")
    before = [entry for entry in entries if entry.event.result in changed and entry.at <= moment]
    return before[-1] if before and before[-1].event.live is not None else None


def describe(entry: Entry) -> str:
    """Format an entry in a few lines."""
    event = entry.event
    lines = [
        f"{entry.record.number:>5}  {entry.at:%Y-%m-%d %H:%M:%S} UTC  {event.action} {event.result}",
        f"       {event.before or 'none'} → {'none' if event.result == 'withdrawn' else event.to}",
    ]
    if event.pull_request is not None or event.approvers or event.actor:
        request = f"pull request {event.pull_request} " if event.pull_request is not None else ""
        approved = f", approved by {', '.join(event.approvers)}" if event.approvers else ""
        lines.append(f"       {request}by {event.actor or 'unknown'}{approved}")
    if event.dataset:
        lines.append(f"       data {event.dataset}, source {event.source_commit or 'unknown'}")
    if event.commit:
        lines.append(f"       deployed from {event.commit}")
    if event.reason:
        lines.append(f"       because {json.dumps(event.reason, ensure_ascii=False)}")
    return "\n".join(lines)
