"""The ledger: one append-only chain of signed records for each model of an environment.

A record is an in-toto statement in a DSSE envelope, stored under its number by a conditional write, and names the
digest of the envelope before it. So a record can be neither changed, nor removed from the middle, nor written twice.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.registry import signing, store
from pipelines.registry.bundles import checked_name

PREDICATE = "https://mlops.template/attestations/promotion/v1"
DIGITS = 10
LONGEST_REASON = 400
"""Bytes."""

MOST_STATEMENTS = 6
"""Statements about the bundle that a record names."""

MOST_COLLISIONS = 1000
"""How often an append makes room for another writer before it gives up."""

Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text on one line. What is signed must be small, and a control character takes six bytes of it."""

_RECORD = re.compile(rf"[0-9]{{{DIGITS}}}\.dsse\.json")


class BrokenLedgerError(MlopsError):
    """The chain is not whole: a record was changed, removed, or written by someone who may not."""


class Event(Declaration):
    """What happened: a promotion or a rollback that was tried, and how it ended.

    Attributes:
        attempt: names this try, so that the same one is never recorded twice.
        at: when it ended.
        action: what was tried.
        result: `verified` when `to` was proven to serve; `refused` by a gate; `failed` on the way.
        before: the bundle that was live; None when none was.
        to: the bundle that was to go live.
        live: the bundle that is live afterwards; None when none is.
        verdicts: gate → outcome.
        report: digest of the full report, stored beside the ledger; None when there is none.
        policy: digest of the gates that were applied.
        evidence: name → digest of the signed statements that the gates read.
        dataset: `<name>@<snapshot>` that the bundle was made from.
        source_commit: the commit that the bundle was made from.
        commit: the commit that was deployed.
        pull_request, approvers: that it was merged by.
        actor: who, or what, did it.
        run: the workflow run.
        reason: why, in words.
    """

    attempt: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    at: AwareDatetime
    action: Literal["promotion", "rollback"]
    result: Literal["verified", "refused", "failed"]
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

    @classmethod
    def of(
        cls,
        *,
        approvers: Sequence[str] = (),
        evidence: Mapping[str, str] | None = None,
        actor: str = "",
        run: str = "",
        reason: str = "",
        **values: object,
    ) -> Event:
        """An event of now, from plain values; texts are cut to what a record holds.

        Args:
            approvers, evidence, actor, run, reason: see the attributes.
            values: the other attributes but `at`.
        """
        cut = {
            "at": datetime.now(UTC).isoformat(),
            "approvers": [words(name, 40) for name in approvers[:6]],
            "evidence": dict(sorted((evidence or {}).items())[:MOST_STATEMENTS]),
            "actor": words(actor, 40),
            "run": words(run, 128),
            "reason": words(reason, LONGEST_REASON),
        }
        return cls.model_validate_json(json.dumps({**cut, **values}))


def words(text: str, longest: int = LONGEST_REASON) -> str:
    """`text` as a record can hold it: printable, on one line, at most so many bytes of UTF-8."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    content = shown.encode()
    return shown if len(content) <= longest else content[: longest - 3].decode(errors="ignore") + "…"


class Record(Declaration):
    """An event in its place in the chain.

    Attributes:
        environment, model: whose chain it is.
        number: from 1, without gaps.
        previous: the digest of the envelope of the record before; None for the first.
        event: what happened.
    """

    environment: Name
    model: Name
    number: Annotated[int, Field(ge=1)]
    previous: Digest | None
    event: Event


@dataclass(frozen=True)
class Entry:
    """A record as it stands in the ledger.

    Attributes:
        record: what it says.
        digest: of its envelope.
    """

    record: Record
    digest: str

    @property
    def event(self) -> Event:
        """What happened."""
        return self.record.event


class Ledger:
    """The chain of one model in one environment.

    Args:
        descriptor: the environment.
        model: the model's name.
    """

    def __init__(self, descriptor: EnvironmentDescriptor, model: str) -> None:
        self.descriptor = descriptor
        self.model = model
        self.prefix = f"ledger/{checked_name(model)}/"
        self._client = store.s3()
        self._seen = 0

    def head(self) -> Entry | None:
        """The newest record, verified; None while there is none.

        Raises:
            BrokenLedgerError: it does not verify.
            MlopsError: the registry cannot be read.
        """
        number = self.newest()
        return self.entry(number) if number else None

    def went_live(self) -> Entry | None:
        """The record by which what is live went live; None while nothing ever did.

        Raises:
            BrokenLedgerError: the chain is not whole.
            MlopsError: the registry cannot be read.
        """
        return next((entry for entry in self.back() if entry.event.result == "verified"), None)

    def entry(self, number: int) -> Entry:
        """The record with this number, verified on its own.

        Raises:
            BrokenLedgerError: it is not there or does not verify.
        """
        return read_entry(self.envelope(number), self.descriptor, self.model, number)

    def envelope(self, number: int) -> bytes:
        """The stored bytes of the record with this number.

        Raises:
            BrokenLedgerError: it is not there, or too large to be one.
        """
        key = self._key(number)
        try:
            return store.get(
                self.descriptor.registry_bucket, key, limit=signing.LARGEST_ENVELOPE, client=self._client
            ).content
        except store.NotFoundError:
            where = f"s3://{self.descriptor.registry_bucket}/{key}"
            raise BrokenLedgerError(f"{where} is missing: the ledger has later records") from None
        except store.TooLargeError as error:
            raise _broken(self.descriptor, self.model, number, f"is no record: {error.what}") from None

    def back(self) -> Iterator[Entry]:
        """The records from the newest to the oldest, each checked to be the one that the next names.

        Raises:
            BrokenLedgerError: the chain is not whole.
        """
        entry = self.head()
        while entry is not None:
            yield entry
            number, previous = entry.record.number, entry.record.previous
            if number == 1:
                return
            entry = self.entry(number - 1)
            if entry.digest != previous:
                raise _broken(self.descriptor, self.model, number, "names another record before it")

    def append(self, decide: Callable[[Entry | None], Event | Entry]) -> Entry:
        """Add a record, or find that this attempt was recorded before.

        Args:
            decide: from the newest record to the event, or to the record that says it already; called again when
                another writer was faster. It raises when the event no longer applies (a release that became stale).

        Raises:
            MlopsError: what `decide` raises, or the record cannot be signed or written.
        """
        for _ in range(MOST_COLLISIONS):
            head = self.head()
            event = decide(head)
            if isinstance(event, Entry):
                return event
            if head is not None and head.event.attempt == event.attempt:
                return head
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
                # Someone else has this number, or our own write got through and its answer was lost.
                found = self.entry(record.number)
                if found.event.attempt == event.attempt:
                    return found
                continue
            except MlopsError:
                # Whether it was written is not known, unless it is there.
                if self.newest() < record.number:
                    raise
                found = self.entry(record.number)
                if found.event.attempt == event.attempt:
                    return found
                continue
            self._seen = record.number
            return Entry(record, digest_of_bytes(content))
        raise MlopsError(
            f"the ledger of {self.model} in {self.descriptor.name} was written by others {MOST_COLLISIONS} times over"
        )

    def _key(self, number: int) -> str:
        return f"{self.prefix}{number:0{DIGITS}d}.dsse.json"

    def newest(self) -> int:
        """The number of the newest record, 0 while there is none.

        Raises:
            BrokenLedgerError: something that is no record lies where a later record would.
            MlopsError: the registry cannot be read.
        """
        # Gallop forward from the last one seen, then halve the distance.
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
        return low

    def _any_after(self, number: int) -> bool:
        bucket, after = self.descriptor.registry_bucket, self._key(number)
        for key in store.first_after(bucket, self.prefix, after, most=1, client=self._client):
            if not _RECORD.fullmatch(key.removeprefix(self.prefix)):
                raise BrokenLedgerError(
                    f"s3://{bucket}/{key} lies in the ledger of {self.model}, and is no record",
                    fix="find out who wrote it, and remove it",
                )
            return True
        return False


def new_attempt() -> str:
    """A name for an attempt that has none of its own."""
    return secrets.token_hex(16)


def read_entry(content: bytes, descriptor: EnvironmentDescriptor, model: str, number: int) -> Entry:
    """Read and verify one record.

    Raises:
        BrokenLedgerError: its signature is wrong, or it is not the record with this number of this chain.
    """
    try:
        verified = signing.verify(
            content, descriptor.trusted_keys, predicate_type=PREDICATE, what=f"record {number} of {model}"
        )
    except signing.BadSignatureError as error:
        raise BrokenLedgerError(error.what) from None
    if verified.signer != descriptor.name:
        raise _broken(descriptor, model, number, f"was signed by {verified.signer}")
    return _placed(content, verified.statement, descriptor, model, number)


def read_unsigned(content: bytes, descriptor: EnvironmentDescriptor, model: str, number: int) -> Entry:
    """Read one record without checking who signed it: for looking at a copy, not for deciding on it.

    Raises:
        BrokenLedgerError: it is not the record with this number of this chain.
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
        reason = error.errors(include_url=False)[0]["msg"]
        raise _broken(descriptor, model, number, f"does not say what a record must: {reason}") from None
    if (record.environment, record.model, record.number) != (descriptor.name, model, number):
        found = f"record {record.number} of {record.model} in {record.environment}"
        raise _broken(descriptor, model, number, f"is {found}, in the wrong place")
    if [f"sha256:{subject.digest['sha256']}" for subject in statement.subject] != [record.event.to]:
        raise _broken(descriptor, model, number, "is about another bundle than it says")
    return Entry(record, digest_of_bytes(content))


def verify_chain(envelopes: Iterable[bytes], descriptor: EnvironmentDescriptor, model: str) -> list[Entry]:
    """Read and verify a whole chain, from its first record on.

    Raises:
        BrokenLedgerError: a signature, a number or a link is wrong; the message names the record.
    """
    entries = [read_entry(content, descriptor, model, number) for number, content in enumerate(envelopes, 1)]
    link(entries, descriptor, model)
    return entries


def link(entries: Sequence[Entry], descriptor: EnvironmentDescriptor, model: str, *, after: str | None = None) -> None:
    """Check that each record names the one before it.

    Args:
        entries: records that follow each other.
        descriptor, model: whose they are.
        after: the digest of the record before the first of them; None when they are the whole chain.

    Raises:
        BrokenLedgerError: one does not.
    """
    previous = after
    for entry in entries:
        if entry.record.previous != previous:
            raise _broken(descriptor, model, entry.record.number, "names another record before it")
        previous = entry.digest


def _broken(descriptor: EnvironmentDescriptor, model: str, number: int, what: str) -> BrokenLedgerError:
    return BrokenLedgerError(
        f"record {number} of {model} in {descriptor.name} {what}",
        fix=f"compare s3://{descriptor.registry_bucket}/ledger/{model}/ with its older object versions",
    )
