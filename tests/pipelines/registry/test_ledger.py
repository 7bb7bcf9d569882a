from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.digests import canonical_json
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import signing, store
from pipelines.registry.ledger import (
    MOST_SEEN,
    BrokenLedgerError,
    Entry,
    Event,
    Ledger,
    Record,
    SeenLedger,
    find_false_dates,
    read_unsigned,
    verify_chain,
    words,
)
from tests.aws import EmulatedAccount
from tests.pipelines.registry.chains import (
    KEY,
    MODEL,
    bundle,
    chain_of,
    envelope_of,
    forge,
    offline_environment,
    verified,
)
from tests.processes import SERVER, start
from tests.signing_environments import make_signing_environment, with_empty_registry

pytestmark = pytest.mark.slow

PROCESSES, ROUNDS = 8, 25


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    return with_empty_registry(environment)


def stored(descriptor: EnvironmentDescriptor) -> list[bytes]:
    """Read every envelope of the chain with boto3, in order."""
    s3 = boto3.client("s3")
    keys = [
        e["Key"] for e in s3.list_objects_v2(Bucket=descriptor.registry_bucket, Prefix="ledger/").get("Contents", ())
    ]
    return [s3.get_object(Bucket=descriptor.registry_bucket, Key=key)["Body"].read() for key in sorted(keys)]


def put(descriptor: EnvironmentDescriptor, key: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=descriptor.registry_bucket, Key=key, Body=content)


def key_of(number: int) -> str:
    return f"ledger/{MODEL}/{number:010d}.dsse.json"


def fill(descriptor: EnvironmentDescriptor, count: int) -> Ledger:
    ledger = Ledger(descriptor, MODEL)
    for number in range(1, count + 1):
        ledger.append(lambda _, number=number: verified(number))  # type: ignore[misc]
    return ledger


# --- appending --------------------------------------------------------------------------------------------------------


def test_records_form_a_chain_that_verifies_offline(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 3)
    entries = verify_chain(stored(dev), dev, MODEL)
    assert [e.record.number for e in entries] == [1, 2, 3]
    assert [e.record.previous for e in entries] == [None, entries[0].digest, entries[1].digest]
    assert [e.event.to for e in entries] == [bundle(1), bundle(2), bundle(3)]
    assert list(ledger.back()) == entries[::-1]
    assert ledger.head() == entries[-1]


def test_an_empty_ledger_has_no_head_and_nothing_live(dev: EnvironmentDescriptor) -> None:
    ledger = Ledger(dev, MODEL)
    assert (ledger.newest(), ledger.head(), ledger.went_live(), list(ledger.back())) == (0, None, None, [])


def test_refused_and_failed_promotions_do_not_change_the_live_bundle(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 2)
    for number, result in ((3, "refused"), (4, "failed")):
        event = verified(number, result=result, before=bundle(2), live=bundle(2))
        ledger.append(lambda _, event=event: event)  # type: ignore[misc]
    found = ledger.went_live()
    assert found is not None and found.record.number == 2


def test_an_attempt_is_recorded_once(dev: EnvironmentDescriptor) -> None:
    first = Ledger(dev, MODEL).append(lambda _: verified(1))
    assert Ledger(dev, MODEL).append(lambda _: verified(1, reason="another reason")) == first
    assert len(stored(dev)) == 1


def test_append_returns_an_existing_record_without_writing(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 2)

    def already(head: Entry | None) -> Entry:
        assert head is not None
        return head

    assert ledger.append(already).record.number == 2
    assert len(stored(dev)) == 2


def test_an_event_that_no_longer_applies_is_not_recorded(dev: EnvironmentDescriptor) -> None:
    def refuse(_: Entry | None) -> Event:
        raise MlopsError("stale")

    with pytest.raises(MlopsError, match="stale"):
        fill(dev, 1).append(refuse)
    assert len(stored(dev)) == 1


def lose(monkeypatch: pytest.MonkeyPatch, error: Exception, *, written: bool, then: Callable[[], None]) -> None:
    """Lose the response of the next write, which may have succeeded; then call a function; then let writes work."""
    put_new = store.put_new

    def losing(*args: Any, **kwargs: Any) -> str:
        monkeypatch.setattr(store, "put_new", put_new)
        if written:
            put_new(*args, **kwargs)
        then()
        raise error

    monkeypatch.setattr(store, "put_new", losing)


LOST = MlopsError("s3:PutObject failed: Connection was closed before we received a valid response")


def test_a_write_with_a_lost_response_is_found_and_not_repeated(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = fill(dev, 1)
    lose(monkeypatch, LOST, written=True, then=lambda: None)
    assert ledger.append(lambda _: verified(2)).record.number == 2
    assert len(verify_chain(stored(dev), dev, MODEL)) == 2


def test_a_write_retried_by_the_sdk_is_recognised(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt succeeds, and the SDK's retry finds the object: S3 answers 412 to our own write."""
    lose(monkeypatch, store.PreconditionFailedError("exists"), written=True, then=lambda: None)
    assert Ledger(dev, MODEL).append(lambda _: verified(1)).record.number == 1
    assert len(stored(dev)) == 1


def test_decide_is_called_again_after_a_conflicting_write_with_a_lost_response(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Ledger(dev, MODEL)

    def append_other() -> None:
        other.append(lambda _: verified(1))

    lose(monkeypatch, LOST, written=False, then=append_other)
    seen: list[int | None] = []

    def decide(head: Entry | None) -> Event:
        seen.append(head.record.number if head else None)
        return verified(2)

    assert Ledger(dev, MODEL).append(decide).record.number == 2
    assert seen == [None, 1]
    assert [e.event.attempt for e in verify_chain(stored(dev), dev, MODEL)] == ["attempt-1", "attempt-2"]


def test_a_failed_write_is_an_error(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, LOST, written=False, then=lambda: None)
    with pytest.raises(MlopsError, match="Connection was closed"):
        Ledger(dev, MODEL).append(lambda _: verified(1))
    assert stored(dev) == []


def race(descriptor: EnvironmentDescriptor, process: int, barrier: Any, results: Any) -> None:
    """Run rounds of promotions: all processes read the live bundle, then replace it at the same time."""
    from pipelines.promotion.attempt import StaleReleaseError, refuse_stale

    outcomes: list[tuple[int, str | None]] = []
    ledger = Ledger(descriptor, MODEL)
    for turn in range(ROUNDS):
        head = ledger.head()
        live, to = head.event.live if head else None, bundle(turn * PROCESSES + process + 1)
        barrier.wait(60)

        def decide(head: Entry | None, live: str | None = live, to: str = to, turn: int = turn) -> Event:
            refuse_stale(head, "dev", MODEL, to, live)
            return verified(1, attempt=f"{turn}/{process}", before=live, to=to, live=to)

        try:
            outcomes.append((turn, ledger.append(decide).event.to))
        except StaleReleaseError:
            outcomes.append((turn, None))
        barrier.wait(60)
    results.put(outcomes)


def test_8_processes_record_200_promotions_without_losing_or_repeating_one(
    dev: EnvironmentDescriptor,
) -> None:
    barrier, results = SERVER.Barrier(PROCESSES), SERVER.Queue()
    workers = [start(race, dev, number, barrier, results) for number in range(PROCESSES)]
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(30)
    outcomes = list(itertools.chain.from_iterable(found))
    assert len(outcomes) == PROCESSES * ROUNDS == 200
    recorded = {turn: to for turn, to in outcomes if to is not None}
    assert sum(to is not None for _, to in outcomes) == len(recorded) == ROUNDS, "exactly one process wins each round"
    entries = verify_chain(stored(dev), dev, MODEL)
    assert [e.event.to for e in entries] == [recorded[turn] for turn in range(ROUNDS)]
    assert [e.event.before for e in entries] == [None, *(e.event.live for e in entries[:-1])]


def append_many(descriptor: EnvironmentDescriptor, worker: int, barrier: Any) -> None:
    barrier.wait(60)
    for number in range(6):
        Ledger(descriptor, MODEL).append(lambda _: verified(1, attempt=f"{worker}/{number}"))  # noqa: B023


def test_concurrent_writers_all_append_their_records(dev: EnvironmentDescriptor) -> None:
    barrier = SERVER.Barrier(3)
    workers = [start(append_many, dev, number, barrier) for number in range(3)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    entries = verify_chain(stored(dev), dev, MODEL)
    assert sorted(e.event.attempt for e in entries) == sorted(f"{w}/{n}" for w in range(3) for n in range(6))


# --- content of a record ----------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    reason=st.text(max_size=2000),
    actor=st.text(max_size=200),
    run=st.text(max_size=300),
    approvers=st.lists(st.text(max_size=100), max_size=20),
    statements=st.integers(0, 64),
    environments=st.integers(0, 9),
)
def test_a_record_of_any_event_is_small_enough_to_sign(
    reason: str, actor: str, run: str, approvers: list[str], statements: int, environments: int
) -> None:
    names = {"evaluation": bundle(0), "provenance": bundle(0)}
    others = [f"e{number}".ljust(40, "x") for number in range(environments)]
    event = verified(
        1,
        attempt="a" * 128,
        verdicts=dict.fromkeys(verified(1).verdicts, "inconclusive"),
        evidence=names | {f"provenance-{number:012x}": bundle(number) for number in range(statements)},
        dataset="d" * 40 + "@" + "9" * 19,
        source_commit="a" * 64,
        commit="a" * 64,
        before=bundle(1),
        pull_request=2**53 - 1,
        reason=reason,
        actor=actor,
        run=run,
        approvers=approvers,
        seen={name: SeenLedger(number=10**10 - 1, digest=bundle(1), key="a" * 16) for name in others},
    )
    assert len(event.seen) == min(environments, MOST_SEEN)
    record = Record(environment="e" * 40, model="m" * 40, number=10**10 - 1, previous=bundle(0), event=event)
    statement = signing.Statement.about("m" * 40, event.to, "p", record.model_dump(mode="json"))
    assert len(signing.encode(signing.PAYLOAD, statement.payload())) <= signing.LARGEST_MESSAGE
    assert set(names) <= set(event.evidence)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("too slow", "too slow"),
        ("two\n  lines\t", "two lines"),
        ("\x1b[1m!\x07", "�[1m!�"),
        ("a\u202eb", "a�b"),
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 7 + "…"),
        ("ä" * 6, "äää…"),
        ("\ud800", "�"),
        ("", ""),
    ],
)
def test_words_returns_one_printable_line_of_bounded_size(text: str, kept: str) -> None:
    assert words(text, 10) == kept


# --- tampering --------------------------------------------------------------------------------------------------------

DEV = offline_environment()
CHAIN = chain_of([verified(number) for number in range(1, 6)])


def resigned(number: int, key: ec.EllipticCurvePrivateKey = KEY, signer: str = "dev", **changes: Any) -> bytes:
    """Change a record of the chain and sign it again."""
    record = read_unsigned(CHAIN[number - 1], DEV, MODEL, number).record
    return envelope_of(record.model_copy(update=changes), key, signer=signer)


def flipped(envelope: bytes, *path: str | int) -> bytes:
    """Change one byte in the base64 value at `path` of an envelope."""
    value = json.loads(envelope)
    place: Any = value
    for step in path[:-1]:
        place = place[step]
    content = bytearray(base64.b64decode(place[path[-1]]))
    content[len(content) // 2] ^= 1
    place[path[-1]] = base64.b64encode(content).decode()
    return canonical_json(value)


OTHER = ec.generate_private_key(ec.SECP256R1())
BROKEN: dict[str, tuple[list[bytes], str]] = {
    "a byte of what was said is changed": (
        [*CHAIN[:2], flipped(CHAIN[2], "payload"), *CHAIN[3:]],
        "record 3 of price has no valid signature",
    ),
    "a byte of the signature is changed": (
        [*CHAIN[:2], flipped(CHAIN[2], "signatures", 0, "sig"), *CHAIN[3:]],
        "record 3 of price has no valid signature",
    ),
    "a record is removed from the middle": (
        [*CHAIN[:2], *CHAIN[3:]],
        "record 3 of price in dev is in the wrong place: found record 4",
    ),
    "the first record is removed": (
        CHAIN[1:],
        "record 1 of price in dev is in the wrong place: found record 2 of price in dev",
    ),
    "two records are swapped": (
        [CHAIN[0], CHAIN[2], CHAIN[1], *CHAIN[3:]],
        "record 2 of price in dev is in the wrong place: found record 3 of price in dev",
    ),
    "a record is there twice": (
        [*CHAIN[:2], CHAIN[1]],
        "record 3 of price in dev is in the wrong place: found record 2 of price in dev",
    ),
    "a record of another environment is put in": (
        [*CHAIN[:2], resigned(3, environment="prod"), *CHAIN[3:]],
        "record 3 of price in dev is in the wrong place: found record 3 of price in prod",
    ),
    "a record of another model is put in": (
        [*CHAIN[:2], resigned(3, model="churn"), *CHAIN[3:]],
        "record 3 of price in dev is in the wrong place: found record 3 of churn in dev",
    ),
    "a record is replaced by another that the same key signed": (
        [*CHAIN[:2], resigned(3, event=verified(9)), *CHAIN[3:]],
        "record 4 of price in dev does not follow the record before it",
    ),
    "another key signed": (
        [*CHAIN[:2], resigned(3, OTHER), *CHAIN[3:]],
        "record 3 of price has no valid signature",
    ),
    "a key that is not known at all signed": (
        [*CHAIN[:2], resigned(3, OTHER, "mallory"), *CHAIN[3:]],
        "expected one of dev, found 'mallory'",
    ),
    "a record is cut off": ([*CHAIN[:4], CHAIN[4][:100]], "record 5 of price is not a DSSE envelope"),
    "a record is empty": ([*CHAIN[:2], b"", *CHAIN[3:]], "record 3 of price is not a DSSE envelope"),
    "a chain does not begin at its first record": (
        [resigned(1, previous=bundle(7))],
        "record 1 of price in dev does not follow the record before it",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_chain_is_broken_when(case: str) -> None:
    envelopes, says = BROKEN[case]
    assert len(verify_chain(CHAIN, DEV, MODEL)) == 5
    with pytest.raises(BrokenLedgerError) as caught:
        verify_chain(envelopes, DEV, MODEL)
    assert says in caught.value.what


def test_a_record_signed_by_another_trusted_environment_is_rejected() -> None:
    both = DEV.model_copy(
        update={"trusted_keys": DEV.trusted_keys | offline_environment("staging", OTHER).trusted_keys}
    )
    with pytest.raises(BrokenLedgerError, match=r"record 3 of price in dev has the wrong signer: .* found staging"):
        verify_chain([*CHAIN[:2], resigned(3, OTHER, "staging"), *CHAIN[3:]], both, MODEL)


def unsigned(about: str, predicate: dict[str, Any]) -> bytes:
    payload = signing.Statement.about(MODEL, about, "x", predicate).payload()
    signature = signing.Signature(keyid="dev", sig="AA==")
    return signing.Envelope(payload=base64.b64encode(payload).decode(), signatures=(signature,)).to_bytes()


def test_a_record_whose_subject_differs_from_its_event_is_rejected() -> None:
    record = read_unsigned(CHAIN[0], DEV, MODEL, 1).record
    with pytest.raises(BrokenLedgerError, match="record 1 of price in dev has a subject that does not match its event"):
        read_unsigned(unsigned(bundle(99), record.model_dump(mode="json")), DEV, MODEL, 1)


def test_a_malformed_record_is_rejected() -> None:
    with pytest.raises(BrokenLedgerError, match="record 1 of price in dev is malformed"):
        read_unsigned(unsigned(bundle(1), {"number": 1}), DEV, MODEL, 1)


@settings(max_examples=60)
@given(place=st.integers(0, len(CHAIN[2]) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_record_is_detected(place: int, bit: int) -> None:
    changed = bytearray(CHAIN[2])
    changed[place] ^= 1 << bit
    with pytest.raises(BrokenLedgerError):
        verify_chain([*CHAIN[:2], bytes(changed), *CHAIN[3:]], DEV, MODEL)


def test_an_error_names_the_missing_record(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 3)
    boto3.client("s3").delete_object(Bucket=dev.registry_bucket, Key=key_of(2))
    with pytest.raises(BrokenLedgerError, match=r"0000000002\.dsse\.json is missing, but the ledger has later records"):
        list(ledger.back())


def test_an_error_names_the_replaced_record(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 3)
    one, *_ = stored(dev)
    put(dev, key_of(2), fill(with_empty_registry(dev), 2).stored(2).content)
    with pytest.raises(BrokenLedgerError, match="record 3 of price in dev does not follow the record before it"):
        list(ledger.back())
    put(dev, key_of(2), one)
    with pytest.raises(BrokenLedgerError, match="record 2 of price in dev is in the wrong place"):
        list(ledger.back())
    put(dev, key_of(2), b"x" * (signing.LARGEST_ENVELOPE + 1))
    with pytest.raises(BrokenLedgerError, match="record 2 of price in dev is not a record"):
        list(ledger.back())


def test_no_decision_is_based_on_an_unverified_newest_record(dev: EnvironmentDescriptor) -> None:
    ledger = fill(dev, 2)
    put(dev, key_of(3), resigned(3, OTHER))
    with pytest.raises(BrokenLedgerError, match="record 3 of price has no valid signature"):
        ledger.append(lambda _: pytest.fail("it was asked to decide"))


@pytest.mark.parametrize("name", ["x", "0000000002.dsse.jsonx", "00000000002.dsse.json", "0000000002.dsse.json/x"])
def test_an_object_that_is_not_a_record_is_an_error(dev: EnvironmentDescriptor, name: str) -> None:
    fill(dev, 1)
    put(dev, f"ledger/{MODEL}/{name}", b"{}")
    with pytest.raises(BrokenLedgerError, match="an object that is not a record"):
        Ledger(dev, MODEL).newest()


# --- finding the newest record ----------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(count=st.integers(0, 5000), seen=st.integers(0, 5000))
def test_the_search_finds_the_newest_record_from_any_start(count: int, seen: int) -> None:
    ledger = Ledger.__new__(Ledger)
    ledger._seen, asked = min(seen, count), []

    def any_after(number: int) -> bool:
        asked.append(number)
        return number < count

    ledger._any_after = any_after  # type: ignore[method-assign]
    ledger._search()
    assert ledger._seen == count
    assert len(asked) <= 2 * (count - min(seen, count) + 1).bit_length() + 1, "the search is logarithmic, not linear"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9])
def test_the_newest_record_is_found_in_the_registry(environment: EnvironmentDescriptor, count: int) -> None:
    dev = with_empty_registry(environment)
    for number in range(1, count + 1):
        put(dev, key_of(number), b"{}")
    put(dev, "ledger/pricey/0000000099.dsse.json", b"{}")
    put(dev, "ledgers", b"")
    ledger = Ledger(dev, MODEL)
    assert ledger.newest() == count
    assert ledger.newest() == count


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_the_newest_of_more_records_than_a_listing_has_is_found(
    environment: EnvironmentDescriptor, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.ledger.MOST_VERSIONS", 3)
    dev = with_empty_registry(environment)
    for number in range(1, count + 1):
        put(dev, key_of(number), b"{}")
    assert Ledger(dev, MODEL).newest() == count


# --- deleted and replaced records ---------------------------------------------------------------------------------


@pytest.fixture
def versioned(dev: EnvironmentDescriptor) -> EnvironmentDescriptor:
    """An environment whose registry keeps every version, as the product provisions it."""
    enabled = {"Status": "Enabled"}
    boto3.client("s3").put_bucket_versioning(Bucket=dev.registry_bucket, VersioningConfiguration=enabled)
    return dev


def delete(descriptor: EnvironmentDescriptor, *numbers: int) -> None:
    for number in numbers:
        boto3.client("s3").delete_object(Bucket=descriptor.registry_bucket, Key=key_of(number))


@pytest.mark.parametrize("numbers", [(3,), (2, 3), (1, 2, 3)])
def test_a_deleted_end_of_the_chain_is_detected_before_any_decision(
    versioned: EnvironmentDescriptor, numbers: tuple[int, ...]
) -> None:
    known = fill(versioned, 3)
    delete(versioned, *numbers)
    for ledger in (Ledger(versioned, MODEL), known):
        with pytest.raises(BrokenLedgerError, match="a record of price in dev was deleted") as caught:
            ledger.append(lambda _: pytest.fail("it was asked to decide"))
        assert "docs/on-call.md#the-ledger-is-broken" in caught.value.fix
        with pytest.raises(BrokenLedgerError, match="was deleted"):
            ledger.head()


def test_an_object_that_is_no_record_does_not_matter_once_it_is_removed(versioned: EnvironmentDescriptor) -> None:
    """The console of AWS writes an empty object for a folder. Object Lock keeps its versions for years."""
    ledger = fill(versioned, 2)
    for name in ("", "x", "0000000009.dsse.json.bak"):
        key = f"ledger/{MODEL}/{name}"
        put(versioned, key, b"")
        put(versioned, key, b"again")
        with pytest.raises(BrokenLedgerError, match="an object that is not a record"):
            Ledger(versioned, MODEL).newest()
        boto3.client("s3").delete_object(Bucket=versioned.registry_bucket, Key=key)
        for each in (Ledger(versioned, MODEL), ledger):
            assert each.newest() == 2
            each.check_versions()
    assert ledger.append(lambda _: verified(3)).record.number == 3


def test_removed_objects_hide_no_record_from_the_first_listing(
    versioned: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.ledger.MOST_VERSIONS", 4)
    fill(versioned, 3)
    for name in ("!", "0", "x", "y", "z"):
        put(versioned, f"ledger/{MODEL}/{name}", b"")
        boto3.client("s3").delete_object(Bucket=versioned.registry_bucket, Key=f"ledger/{MODEL}/{name}")
    assert Ledger(versioned, MODEL).newest() == 3
    delete(versioned, 3)
    with pytest.raises(BrokenLedgerError, match="was deleted"):
        Ledger(versioned, MODEL).newest()


def test_a_replaced_newest_record_is_detected_before_any_decision(versioned: EnvironmentDescriptor) -> None:
    fill(versioned, 2)
    put(versioned, key_of(2), resigned(2))
    with pytest.raises(BrokenLedgerError, match="a record of price in dev was replaced"):
        Ledger(versioned, MODEL).head()


def test_a_rewritten_chain_is_detected(versioned: EnvironmentDescriptor) -> None:
    """As by a thief of a deploy role: every record is signed with the right key, and linked."""
    ledger, events = fill(versioned, 3), [verified(number) for number in (7, 8)]
    ledger.check_versions()
    lines = with_empty_registry(versioned)
    for event in events:
        Ledger(lines, MODEL).append(lambda _, event=event: event)  # type: ignore[misc]
    for number, content in enumerate(stored(lines), 1):
        put(versioned, key_of(number), content)
    with pytest.raises(BrokenLedgerError, match="was replaced"):
        Ledger(versioned, MODEL).check_versions()


# --- retries and clocks -------------------------------------------------------------------------------------------


def test_an_attempt_whose_answer_was_lost_is_recognised_after_later_records(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost, the ledger cannot be read either, others append, and the caller tries again."""
    ledger = fill(dev, 1)
    with monkeypatch.context() as patch:
        lose(patch, LOST, written=True, then=lambda: patch.setattr(store, "versions", unreachable))
        with pytest.raises(MlopsError, match="Connection was closed"):
            ledger.append(lambda _: verified(2))
    for number in (3, 4):
        Ledger(dev, MODEL).append(lambda _, number=number: verified(number))  # type: ignore[misc]
    assert Ledger(dev, MODEL).append(lambda _: verified(2, reason="again")).record.number == 2
    assert [e.event.attempt for e in verify_chain(stored(dev), dev, MODEL)] == [f"attempt-{n}" for n in range(1, 5)]


def unreachable(*_: Any, **__: Any) -> Any:
    raise LOST


def at(number: int, moment: datetime) -> Event:
    return verified(number).model_copy(update={"at": moment})


def test_a_clock_that_is_set_back_is_refused(dev: EnvironmentDescriptor) -> None:
    now = datetime.now(UTC)
    ledger = Ledger(dev, MODEL)
    ledger.append(lambda _: at(1, now))
    with pytest.raises(MlopsError, match="the clock of this machine is behind record 1 of price in dev") as caught:
        ledger.append(lambda _: at(2, now - timedelta(hours=2)))
    assert "set the clock" in caught.value.fix
    assert len(stored(dev)) == 1


def test_clocks_that_differ_as_much_as_aws_allows_keep_the_order(dev: EnvironmentDescriptor) -> None:
    now = datetime.now(UTC)
    ledger = Ledger(dev, MODEL)
    for number, moment in ((1, now), (2, now - timedelta(minutes=9)), (3, now + timedelta(seconds=1))):
        ledger.append(lambda _, number=number, moment=moment: at(number, moment))  # type: ignore[misc]
    times = [entry.event.at for entry in verify_chain(stored(dev), dev, MODEL)]
    assert times == sorted(times)
    assert times[0] == times[1]


def test_a_record_that_is_earlier_than_the_one_before_is_named() -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert find_false_dates(verify_chain(chain_of([at(1, now), at(2, now)]), DEV, MODEL)) == []
    assert find_false_dates(verify_chain(chain_of([at(1, now), at(2, now - timedelta(seconds=1))]), DEV, MODEL)) == [
        "record 2 of price in dev is dated 2026-03-02 11:59:59 UTC, earlier than the record before it"
    ]


FALSE_DATES = {
    "the future": datetime(2099, 1, 1, tzinfo=UTC),
    "the last date": datetime.max.replace(tzinfo=UTC),
    "the first date": datetime.min.replace(tzinfo=UTC),
    "the past": datetime(2020, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize("date", FALSE_DATES)
def test_a_false_date_does_not_keep_later_records_out(dev: EnvironmentDescriptor, date: str) -> None:
    """A holder of a deploy role can write any date, but S3 says when it stored the record."""
    ledger = fill(dev, 1)
    forge(dev, MODEL, at(2, FALSE_DATES[date]))
    began = datetime.now(UTC)
    for each, number in ((ledger, 3), (Ledger(dev, MODEL), 4)):
        assert each.append(lambda _, number=number: verified(number)).record.number == number  # type: ignore[misc]
    entries = list(ledger.back())[::-1]
    assert [entry.record.number for entry in entries] == [1, 2, 3, 4]
    assert abs(entries[1].at - began) < timedelta(minutes=1), "the time at which S3 stored it counts"
    assert entries[1].event.at == FALSE_DATES[date]
    assert [entry.at for entry in entries if entry is not entries[1]] == [
        entry.event.at for entry in entries if entry is not entries[1]
    ]
    (named,) = find_false_dates(entries)
    assert named.startswith(f"record 2 of price in dev is dated {FALSE_DATES[date]:%Y-%m-%d %H:%M:%S} UTC, but was ")


def test_a_clock_that_is_set_back_is_refused_after_a_record_of_the_future(dev: EnvironmentDescriptor) -> None:
    ledger, now = fill(dev, 1), datetime.now(UTC)
    forge(dev, MODEL, at(2, FALSE_DATES["the future"]))
    with pytest.raises(MlopsError, match="the clock of this machine is behind record 2 of price in dev"):
        ledger.append(lambda _: at(3, now - timedelta(hours=2)))
    assert len(stored(dev)) == 2


# --- records that do not fit ----------------------------------------------------------------------------------------


def test_the_newest_record_counts_only_if_it_follows_the_one_before(dev: EnvironmentDescriptor) -> None:
    """As by a thief of a deploy role, who can sign: without the link, the record before could be a forged one, too."""
    known = fill(dev, 2)
    forge(dev, MODEL, verified(3), previous=bundle(7))
    for ledger in (Ledger(dev, MODEL), known):
        for read in (ledger.head, ledger.went_live, lambda: next(ledger.back()), lambda: ledger.append(undecided)):  # noqa: B023
            with pytest.raises(BrokenLedgerError, match="record 3 of price in dev does not follow the record before"):
                read()
    assert len(stored(dev)) == 3


def undecided(_: Entry | None) -> Event:
    pytest.fail("it was asked to decide")


def test_the_first_record_follows_none(dev: EnvironmentDescriptor) -> None:
    forge(dev, MODEL, verified(1), previous=bundle(7))
    with pytest.raises(BrokenLedgerError, match="record 1 of price in dev does not follow the record before it"):
        Ledger(dev, MODEL).head()


@pytest.mark.parametrize(("records", "reads"), [(1, 1), (2, 2), (12, 2)])
def test_the_link_of_the_newest_record_costs_one_more_read(
    dev: EnvironmentDescriptor, records: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dev, records)
    read: list[str] = []
    get = store.get

    def noted_get(bucket: str, key: str, **given: Any) -> Any:
        read.append(key)
        return get(bucket, key, **given)

    monkeypatch.setattr(store, "get", noted_get)
    head = Ledger(dev, MODEL).head()
    assert head is not None and head.record.number == records
    assert len(read) == reads


def test_a_record_of_the_same_attempt_that_does_not_fit_is_refused(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts of workflow runs have names that others can guess."""
    fill(dev, 1)

    def forged() -> None:
        forge(dev, MODEL, verified(2), previous=bundle(7))

    lose(monkeypatch, LOST, written=False, then=forged)
    with pytest.raises(BrokenLedgerError, match="record 2 of price in dev does not follow the record before it"):
        Ledger(dev, MODEL).append(lambda _: verified(2))


def test_no_attempt_is_found_behind_a_broken_link(dev: EnvironmentDescriptor) -> None:
    fill(dev, 1)
    forge(dev, MODEL, verified(2), previous=bundle(7))
    forge(dev, MODEL, verified(3))
    with pytest.raises(BrokenLedgerError, match="record 2 of price in dev does not follow the record before it"):
        Ledger(dev, MODEL).append(lambda _: verified(2))
