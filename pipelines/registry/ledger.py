"""Ledger: an append-only chain of signed records for each model of an environment.

A record is an in-toto statement in a DSSE envelope. It is stored under its number with a conditional write, and holds
the digest of the envelope before it. So no record can be changed, removed from the middle, or written twice unnoticed.

The bucket keeps every version of an object. So a record that was deleted or replaced at the end of the chain leaves a
version, which every read looks for. `ledger_witnesses` finds records that are gone with all their versions.

A writer chooses the date in its record, and S3 the time at which it stored it. A date that differs too much does not
count; see `Entry.at`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Commit, Name, checked_name
from pipelines.declarations.printable import printable
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry import signing, store

PREDICATE = "https://mlops.template/attestations/promotion/v1"
DIGITS = 10
LONGEST_REASON = 400
"""Size limit of a reason, in bytes of UTF-8."""

MOST_STATEMENTS = 6
"""Maximum number of statements about the bundle in a record."""

MOST_SEEN = 4
"""Maximum number of other ledgers in a record."""

CLOCK_DIFFERENCE = timedelta(minutes=10)
"""Difference between two clocks, at most: AWS KMS accepts requests up to five minutes early or late."""

LONGEST_ATTEMPT = timedelta(days=1)
"""Time within which an attempt that failed to record its result may try again."""

MOST_VERSIONS = 1000
"""Versions in one listing: the limit of S3."""

RECORDS_AT_ONCE = 8
"""Maximum number of records that are read in parallel."""

MOST_COLLISIONS = 1000
"""Maximum number of attempts to append a record while other writers append first."""

Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text on one line. Control characters are excluded: each takes six bytes of the limited signed message."""

_RECORD = re.compile(rf"[0-9]{{{DIGITS}}}\.dsse\.json")


class BrokenLedgerError(MlopsError):
    """The chain is broken: a record was changed, removed, or signed by an untrusted key."""


class SeenLedger(Declaration):
    """Newest record of another environment's ledger of the same model, when a record was written.

    Attributes:
        number: number of the record.
        digest: digest of its envelope.
        key: first 16 hexadecimal digits of the SHA-256 of the environment's public key, PEM. An environment that is
            created again has another key, and its ledger begins again.
    """

    number: Annotated[int, Field(ge=1)]
    digest: Digest
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Event(Declaration):
    """Attempt to promote or roll back, and its result.

    Attributes:
        attempt: unique id, so an attempt is never recorded twice.
        at: when the attempt ended.
        action: promotion, rollback, or withdrawal of the model.
        result: `verified` if `to` was proven to serve; `refused` by a gate; `withdrawn` if the endpoint is gone;
            `failed` otherwise.
        before: bundle that was live; None if none was.
        to: bundle that was to go live, or that was withdrawn.
        live: bundle that is live afterwards; None if none is.
        verdicts: gate → outcome.
        report: digest of the full report, stored in the same registry; None if there is none.
        policy: digest of the gates that were applied.
        evidence: name → digest of the signed statements that the gates read.
        dataset: `<name>@<snapshot>` that the bundle was trained on.
        source_commit: commit that the bundle was made from.
        commit: commit that was deployed.
        pull_request, approvers: the pull request that merged the release, and who approved it.
        actor: person or process that started the attempt.
        run: workflow run.
        reason: why, on one line.
        seen: environment → the end of its ledger, as a promotion saw it; see `ledger_witnesses`.
    """

    attempt: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    at: Timestamp
    action: Literal["promotion", "rollback", "withdrawal"]
    result: Literal["verified", "refused", "failed", "withdrawn"]
    before: Digest | None
    to: Digest
    live: Digest | None
    verdicts: dict[str, Literal["pass", "fail", "inconclusive"]] = Field(default_factory=dict)
    report: Digest | None = None
    policy: Digest | None = None
    evidence: dict[Annotated[Words, Field(max_length=32)], Digest] = Field(
        default_factory=dict, max_length=MOST_STATEMENTS
    )
    dataset: Annotated[Words, Field(max_length=64)] = ""
    source_commit: Commit | None = None
    commit: Commit | None = None
    pull_request: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    approvers: Annotated[tuple[Annotated[Words, Field(max_length=40)], ...], Field(max_length=6)] = ()
    actor: Annotated[Words, Field(max_length=40)] = ""
    run: Annotated[Words, Field(max_length=128)] = ""
    reason: Annotated[Words, Field(max_length=LONGEST_REASON)] = ""
    seen: dict[Name, SeenLedger] = Field(default_factory=dict, max_length=MOST_SEEN)

    @classmethod
    def of(
        cls,
        *,
        approvers: Sequence[str] = (),
        evidence: Mapping[str, str] | None = None,
        actor: str = "",
        run: str = "",
        reason: str = "",
        seen: Mapping[str, SeenLedger] | None = None,
        **values: object,
    ) -> Event:
        """Make an event with the current time; texts are cut to their maximum length.

        Args:
            approvers, evidence, actor, run, reason, seen: see the attributes.
            values: the other attributes except `at`.
        """
        cut = {
            "at": datetime.now(UTC).isoformat(),
            "approvers": [words(name, 40) for name in approvers[:6]],
            "evidence": dict(sorted((evidence or {}).items())[:MOST_STATEMENTS]),
            "actor": words(actor, 40),
            "run": words(run, 128),
            "reason": words(reason, LONGEST_REASON),
            "seen": {name: one.model_dump() for name, one in list((seen or {}).items())[-MOST_SEEN:]},
        }
        return cls.model_validate_json(json.dumps({**cut, **values}))


def words(text: str, longest: int = LONGEST_REASON) -> str:
    """Make a text fit into a record: printable, on one line, at most `longest` bytes of UTF-8."""
    shown = printable(" ".join(text.split()))
    content = shown.encode()
    return shown if len(content) <= longest else content[: longest - 3].decode(errors="ignore") + "…"


class Record(Declaration):
    """Event with its position in the chain.

    Attributes:
        environment, model: owner of the chain.
        number: position, from 1 without gaps.
        previous: digest of the envelope of the previous record; None for the first.
        event: the event.
    """

    environment: Name
    model: Name
    number: Annotated[int, Field(ge=1)]
    previous: Digest | None
    event: Event


@dataclass(frozen=True)
class Entry:
    """Record stored in the ledger.

    Attributes:
        record: the record.
        digest: digest of its envelope.
        stored: when S3 stored it; None if that is not known, as in a copy.
    """

    record: Record
    digest: str
    stored: datetime | None = field(default=None, compare=False)

    @property
    def event(self) -> Event:
        """The event of the record."""
        return self.record.event

    @property
    def at(self) -> datetime:
        """When the attempt ended: the date in the record, or when S3 stored it if the two differ too much.

        No writer can choose the second. So a false date neither keeps later records out nor makes a soak longer.
        """
        stated = self.event.at
        return self.stored if self.stored is not None and abs(stated - self.stored) > CLOCK_DIFFERENCE else stated


class Ledger:
    """Ledger of one model in one environment.

    Args:
        descriptor: the environment.
        model: name of the model.
    """

    def __init__(self, descriptor: EnvironmentDescriptor, model: str) -> None:
        self.descriptor = descriptor
        self.model = model
        self.prefix = f"ledger/{checked_name(model)}/"
        self._client = store.s3()
        self._seen = 0
        self._read: dict[int, Entry] = {}  # never changes, unless it is tampered with; used to find attempts only

    def head(self) -> Entry | None:
        """Return the newest record, with its signature and its link verified; None if the ledger is empty.

        Raises:
            BrokenLedgerError: the record does not verify, or does not follow the one before it.
            MlopsError: the registry cannot be read.
        """
        return next(self.back(), None)

    def went_live(self) -> Entry | None:
        """Return the newest verified promotion or rollback: the record of the live bundle; None if there is none.

        Raises:
            BrokenLedgerError: the chain is broken.
            MlopsError: the registry cannot be read.
        """
        for entry in self.back():
            if entry.event.result in ("verified", "withdrawn"):
                return entry if entry.event.live is not None else None
        return None

    def entry(self, number: int) -> Entry:
        """Return the record with this number. Its signature is verified, but not its links.

        Raises:
            BrokenLedgerError: the record does not exist or does not verify.
        """
        stored = self.stored(number)
        return replace(read_entry(stored.content, self.descriptor, self.model, number), stored=stored.modified)

    def stored(self, number: int) -> store.Stored:
        """Return the object of the record with this number.

        Raises:
            BrokenLedgerError: the record does not exist, or is too large.
        """
        key = self._key(number)
        try:
            return store.get(self.descriptor.registry_bucket, key, limit=signing.LARGEST_ENVELOPE, client=self._client)
        except store.NotFoundError:
            where = f"s3://{self.descriptor.registry_bucket}/{key}"
            raise BrokenLedgerError(f"{where} is missing, but the ledger has later records") from None
        except store.TooLargeError as error:
            raise _broken(self.descriptor, self.model, number, f"is not a record: {error.what}") from None

    def back(self) -> Iterator[Entry]:
        """Iterate over the records from newest to oldest. Each has followed the one before it when it is returned.

        Raises:
            BrokenLedgerError: the chain is broken.
        """
        later: Entry | None = None
        for entry in self._read_back():
            if later is not None:
                link([later], self.descriptor, self.model, after=entry.digest)
                self._read[entry.record.number] = entry
                yield later
            later = entry
        if later is not None:
            link([later], self.descriptor, self.model)
            yield later

    def _read_back(self) -> Iterator[Entry]:
        """Read the records from newest to oldest, the further back the more at once."""
        number, at_once = self.newest(), 2  # the newest record is of no use without the one before it
        while number:
            numbers = range(number, max(number - at_once, 0), -1)
            if len(numbers) == 1:
                yield self.entry(number)
            else:
                with ThreadPoolExecutor(len(numbers)) as pool:
                    yield from pool.map(self.entry, numbers)
            number, at_once = number - len(numbers), min(2 * at_once, RECORDS_AT_ONCE)

    def append(self, decide: Callable[[Entry | None], Event | Entry]) -> Entry:
        """Append a record, or return the existing record of the same attempt.

        Args:
            decide: takes the newest record and returns the event to append, or an existing record to return. Called
                again if another writer appends first. May raise if the event no longer applies (a stale release).

        Raises:
            MlopsError: from `decide`; the clock of this machine is wrong; or the record cannot be signed or written.
        """
        searched = 0
        for _ in range(MOST_COLLISIONS):
            head = self.head()
            event = decide(head)
            if isinstance(event, Entry):
                return event
            # The result may be recorded already: a response was lost, and other writers have appended since.
            found = self._find_attempt(event, head, after=searched)
            if found is not None:
                return found
            searched = head.record.number if head else 0
            event = self._in_time(event, head)
            record = Record(
                environment=self.descriptor.name,
                model=self.model,
                number=head.record.number + 1 if head else 1,
                previous=head.digest if head else None,
                event=event,
            )
            statement = signing.Statement.about(self.model, event.to, PREDICATE, record.model_dump(mode="json"))
            content = signing.sign(statement, self.descriptor.signing_key, self.descriptor.name).to_bytes()
            try:
                store.put_new(self.descriptor.registry_bucket, self._key(record.number), content, client=self._client)
            except store.PreconditionFailedError:
                # Another writer took this number, or our write succeeded and its response was lost.
                found = self._follower(record)
                if found is not None:
                    return found
                continue
            except MlopsError:
                # The write may have succeeded: look for the record.
                if self.newest() < record.number:
                    raise
                found = self._follower(record)
                if found is not None:
                    return found
                continue
            self._seen = record.number
            return Entry(record, digest_of_bytes(content))
        raise MlopsError(
            f"the ledger of {self.model} in {self.descriptor.name} is busy: {MOST_COLLISIONS} appends conflicted with "
            "other writers",
            fix="try again later",
        )

    def _follower(self, record: Record) -> Entry | None:
        """Return what is stored in the place of a record if it is about the same attempt, else None.

        Raises:
            BrokenLedgerError: it does not follow the record before it.
        """
        found = self.entry(record.number)
        link([found], self.descriptor, self.model, after=record.previous)
        return found if found.event.attempt == record.event.attempt else None

    def _find_attempt(self, event: Event, head: Entry | None, *, after: int) -> Entry | None:
        """Return the record of an event's attempt among the recent ones with a number above `after`."""
        oldest = event.at - LONGEST_ATTEMPT
        entry = head
        while entry is not None and entry.record.number > after and entry.at >= oldest:
            number = entry.record.number - 1
            if number and number not in self._read:
                self._read[number] = self.entry(number)
            before = self._read.get(number)
            link([entry], self.descriptor, self.model, after=before.digest if before is not None else None)
            if entry.event.attempt == event.attempt:
                return entry
            entry = before
        return None

    def _in_time(self, event: Event, head: Entry | None) -> Event:
        """Return an event that is not earlier than the newest record.

        Raises:
            MlopsError: the clock of this machine is wrong.
        """
        if head is None or event.at >= head.at:
            return event
        if head.at - event.at > CLOCK_DIFFERENCE:
            raise MlopsError(
                f"the clock of this machine is behind record {head.record.number} of {self.model} in "
                f"{self.descriptor.name}: expected {head.at.isoformat()} or later, found {event.at.isoformat()}",
                fix="set the clock of this machine, then run the command again",
            )
        return event.model_copy(update={"at": head.at})

    def try_append(self) -> None:
        """Check that a record could be written, without writing one: S3 checks permissions before conditions.

        Does nothing if the ledger is empty.

        Raises:
            MlopsError: the caller may not write to the ledger, or the registry does not answer.
        """
        number = self.newest()
        if number:
            with suppress(store.PreconditionFailedError):
                store.put_new(self.descriptor.registry_bucket, self._key(number), b"", client=self._client)

    def _key(self, number: int) -> str:
        return f"{self.prefix}{number:0{DIGITS}d}.dsse.json"

    def newest(self) -> int:
        """Return the number of the newest record; 0 if the ledger is empty.

        Raises:
            BrokenLedgerError: an object in the ledger is not a record, or records at its end were deleted or replaced.
            MlopsError: the registry cannot be read.
        """
        listed = self._look_at_end(MOST_VERSIONS)
        if listed == MOST_VERSIONS:  # there may be more: find the end first, and look at all there
            self._search()
            self._look_at_end(None)
        return self._seen

    def _look_at_end(self, most: int | None) -> int:
        """Check the versions from the newest known record on, move `_seen`, and return how many were listed.

        Args:
            most: number of versions after which to stop; None for all of them.
        """
        after = self._key(self._seen - 1) if self._seen > 1 else ""
        bucket = self.descriptor.registry_bucket
        found = list(store.versions(bucket, self.prefix, after=after, most=most, client=self._client))
        self._seen = max(map(self._number, self._check(found)), default=self._seen)
        return len(found)

    def check_versions(self) -> None:
        """Check that every record was written once, and none was deleted.

        Raises:
            BrokenLedgerError: a record was deleted or replaced.
            MlopsError: the registry cannot be read.
        """
        self._check(store.versions(self.descriptor.registry_bucket, self.prefix, client=self._client))

    def stored_times(self) -> dict[int, datetime]:
        """Return number → when S3 stored the record, for every record.

        Raises:
            BrokenLedgerError: a record was deleted or replaced, or there is another object.
            MlopsError: the registry cannot be read.
        """
        found = list(store.versions(self.descriptor.registry_bucket, self.prefix, client=self._client))
        records = self._check(found)
        return {self._number(each.key): each.modified for each in found if each.key in records}

    def _check(self, versions: Iterable[store.Version]) -> set[str]:
        """Return the keys of records.

        Another object does not matter once it is removed: its versions may have to stay for years.

        Raises:
            BrokenLedgerError: a record has a delete marker, or more than one version; or there is another object.
        """
        known: set[str] = set()
        for version in versions:
            if not _RECORD.fullmatch(version.key.removeprefix(self.prefix)):
                if version.is_newest and not version.deletes:
                    self._number(version.key)
                continue
            if version.deletes or version.key in known:
                what = "deleted" if version.deletes else "replaced"
                raise BrokenLedgerError(
                    f"a record of {self.model} in {self.descriptor.name} was {what}: "
                    f"s3://{self.descriptor.registry_bucket}/{version.key} has older versions",
                    fix="find out who did it (docs/on-call.md#the-ledger-is-broken)",
                )
            known.add(version.key)
        return known

    def _search(self) -> None:
        """Move `_seen` to the number of the newest record, by exponential and then binary search."""
        low, step = self._seen, 1
        while self._any_after(low + step - 1):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if self._any_after(middle - 1):
                low = middle
            else:
                high = middle
        self._seen = low

    def _any_after(self, number: int) -> bool:
        after = self._key(number)
        found = store.first_after(self.descriptor.registry_bucket, self.prefix, after, most=1, client=self._client)
        return any(self._number(key) for key in found)

    def _number(self, key: str) -> int:
        """Return the number of the record with this key.

        Raises:
            BrokenLedgerError: it is not the key of a record.
        """
        name = key.removeprefix(self.prefix)
        if not _RECORD.fullmatch(name):
            raise BrokenLedgerError(
                f"the ledger of {self.model} has an object that is not a record: "
                f"s3://{self.descriptor.registry_bucket}/{key}",
                fix="find out who wrote it, and remove it",
            )
        return int(name[:DIGITS])


def new_attempt() -> str:
    """Return a random attempt id."""
    return secrets.token_hex(16)


def read_entry(content: bytes, descriptor: EnvironmentDescriptor, model: str, number: int) -> Entry:
    """Read and verify one record.

    Raises:
        BrokenLedgerError: the signature is not valid, or this is not the record with this number of this chain.
    """
    try:
        verified = signing.verify(
            content, descriptor.trusted_keys, predicate_type=PREDICATE, what=f"record {number} of {model}"
        )
    except signing.BadSignatureError as error:
        raise BrokenLedgerError(error.what) from None
    if verified.signer != descriptor.name:
        raise _broken(
            descriptor, model, number, f"has the wrong signer: expected {descriptor.name}, found {verified.signer}"
        )
    return _placed(content, verified.statement, descriptor, model, number)


def read_unsigned(content: bytes, descriptor: EnvironmentDescriptor, model: str, number: int) -> Entry:
    """Read one record without verifying its signature: for display, never for a decision.

    Raises:
        BrokenLedgerError: this is not the record with this number of this chain.
    """
    try:
        statement = signing.read_unverified(content)
    except signing.BadSignatureError as error:
        raise BrokenLedgerError(f"record {number} of {model}: {error.what}") from None
    return _placed(content, statement, descriptor, model, number)


def _placed(
    content: bytes, statement: signing.Statement, descriptor: EnvironmentDescriptor, model: str, number: int
) -> Entry:
    try:
        record = Record.model_validate_json(json.dumps(statement.predicate))
    except ValidationError as error:
        raise _broken(descriptor, model, number, f"is malformed: {first_problem(error)}") from None
    if (record.environment, record.model, record.number) != (descriptor.name, model, number):
        found = f"record {record.number} of {record.model} in {record.environment}"
        raise _broken(descriptor, model, number, f"is in the wrong place: found {found}")
    if [f"sha256:{subject.digest['sha256']}" for subject in statement.subject] != [record.event.to]:
        raise _broken(descriptor, model, number, "has a subject that does not match its event")
    return Entry(record, digest_of_bytes(content))


def verify_chain(envelopes: Iterable[bytes], descriptor: EnvironmentDescriptor, model: str) -> list[Entry]:
    """Read and verify a whole chain, from the first record.

    Raises:
        BrokenLedgerError: a signature, a number or a link is wrong; the error names the record.
    """
    entries = [read_entry(content, descriptor, model, number) for number, content in enumerate(envelopes, 1)]
    link(entries, descriptor, model)
    return entries


def link(entries: Sequence[Entry], descriptor: EnvironmentDescriptor, model: str, *, after: str | None = None) -> None:
    """Check that each record holds the digest of the one before it.

    Args:
        entries: consecutive records.
        descriptor, model: owner of the chain.
        after: digest of the record before the first entry; None if that is the first record of the chain.

    Raises:
        BrokenLedgerError: a link is wrong.
    """
    previous = after
    for entry in entries:
        if entry.record.previous != previous:
            raise _broken(descriptor, model, entry.record.number, "does not follow the record before it")
        previous = entry.digest


def find_false_dates(entries: Iterable[Entry]) -> list[str]:
    """Name the records that are not dated when S3 stored them, or earlier than the record before them.

    Args:
        entries: consecutive records of a chain, oldest first.
    """
    found, before = [], None
    for entry in entries:
        record, stated = entry.record, entry.event.at
        what = f"record {record.number} of {record.model} in {record.environment} is dated {_shown(stated)}"
        if entry.at != stated:
            found.append(f"{what}, but was stored at {_shown(entry.at)}, which counts")
        elif before is not None and stated < before.at:
            found.append(f"{what}, earlier than the record before it")
        before = entry
    return found


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _broken(descriptor: EnvironmentDescriptor, model: str, number: int, what: str) -> BrokenLedgerError:
    return BrokenLedgerError(
        f"record {number} of {model} in {descriptor.name} {what}",
        fix=f"compare s3://{descriptor.registry_bucket}/ledger/{model}/ with its older object versions",
    )
