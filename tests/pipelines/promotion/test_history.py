from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.history import at_time, describe, read_history
from pipelines.registry import store
from pipelines.registry.ledger import BrokenLedgerError, Entry, Ledger, find_false_dates, verify_chain
from tests.aws import EmulatedAccount
from tests.pipelines.registry.chains import MODEL, bundle, chain_of, forge, offline_environment, verified
from tests.signing_environments import make_signing_environment, with_empty_registry

pytestmark = pytest.mark.slow

DEV = offline_environment()
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
CHAIN = chain_of([verified(number) for number in range(1, 7)])


def write_copy(folder: Path, envelopes: list[bytes]) -> Path:
    """Write the copy that an earlier run would have left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.json").write_text(DEV.model_dump_json())
    path = folder / f"{MODEL}.jsonl"
    path.write_bytes(b"".join(envelope + b"\n" for envelope in envelopes))
    return path


# --- offline ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_history_is_read_from_the_copy_offline(tmp_path: Path, verify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    write_copy(tmp_path, CHAIN)
    entries = read_history(tmp_path, MODEL, None, verify=verify)
    assert entries == verify_chain(CHAIN, DEV, MODEL)


def test_a_missing_copy_is_an_error_offline(tmp_path: Path) -> None:
    with pytest.raises(MlopsError) as caught:
        read_history(tmp_path, MODEL, None)
    assert caught.value.what == f"there is no copy of the ledger in {tmp_path}"
    assert caught.value.fix == "run it once without --offline"


def test_an_invalid_environment_in_the_copy_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_copy(tmp_path, CHAIN)
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(MlopsError, match=f"{tmp_path / 'environment.json'}"):
        read_history(tmp_path, MODEL, None)


def test_a_model_without_records_has_no_history(tmp_path: Path) -> None:
    write_copy(tmp_path, [])
    assert read_history(tmp_path, "churn", None, verify=True) == []


def test_an_incomplete_last_line_of_the_copy_is_ignored(tmp_path: Path) -> None:
    path = write_copy(tmp_path, CHAIN)
    path.write_bytes(path.read_bytes()[:-100])
    assert len(read_history(tmp_path, MODEL, None, verify=True)) == 5


@pytest.mark.parametrize("verify", [False, True])
def test_a_record_missing_from_the_copy_is_an_error_with_a_fix(tmp_path: Path, verify: bool) -> None:
    path = write_copy(tmp_path, [*CHAIN[:2], *CHAIN[3:]])
    with pytest.raises(BrokenLedgerError, match="record 3 of price in dev is in the wrong place") as caught:
        read_history(tmp_path, MODEL, None, verify=verify)
    assert caught.value.fix == (
        f"if only the copy is damaged, delete {path} and run this again; "
        f"compare s3://registry/ledger/{MODEL}/ with its older object versions"
    )


@pytest.mark.parametrize("verify", [False, True])
def test_a_broken_link_between_records_of_the_copy_is_an_error(tmp_path: Path, verify: bool) -> None:
    other = chain_of([verified(number) for number in range(7, 10)])
    write_copy(tmp_path, [*CHAIN[:2], other[2]])
    with pytest.raises(BrokenLedgerError) as caught:
        read_history(tmp_path, MODEL, None, verify=verify)
    assert caught.value.what == f"record 3 of {MODEL} in dev does not follow the record before it"


def test_an_invalid_line_of_the_copy_is_an_error_with_a_fix(tmp_path: Path) -> None:
    path = write_copy(tmp_path, [*CHAIN[:2], b"; "])
    with pytest.raises(BrokenLedgerError, match="record 3 of price") as caught:
        read_history(tmp_path, MODEL, None)
    assert caught.value.fix == f"if only the copy is damaged, delete {path} and run this again"


def test_verify_detects_a_changed_signature_in_the_copy(tmp_path: Path) -> None:
    """Without verify, records are only parsed and their links checked."""
    changed = CHAIN[5].replace(b'"sig":"ME', b'"sig":"MF')
    assert changed != CHAIN[5]
    write_copy(tmp_path, [*CHAIN[:5], changed])
    assert len(read_history(tmp_path, MODEL, None)) == 6
    with pytest.raises(BrokenLedgerError, match="record 6 of price has no valid signature"):
        read_history(tmp_path, MODEL, None, verify=True)


def test_a_long_history_is_verified_to_its_last_record(tmp_path: Path) -> None:
    """tools/bench/history.py measures ten thousand records."""
    envelopes = chain_of([verified(number) for number in range(1, 101)])
    write_copy(tmp_path, envelopes)
    entries = read_history(tmp_path, MODEL, None, verify=True)
    assert [entry.record.number for entry in entries] == list(range(1, 101))
    for place in (0, 49, 99):
        changed = bytearray(envelopes[place])
        changed[len(changed) // 3] ^= 1
        write_copy(tmp_path, [*envelopes[:place], bytes(changed), *envelopes[place + 1 :]])
        with pytest.raises(BrokenLedgerError, match=f"record {place + 1} of price"):
            read_history(tmp_path, MODEL, None, verify=True)


# --- what ran when ----------------------------------------------------------------------------------------------------


def chain_with(*happened: tuple[float, str, int | None]) -> list[Entry]:
    """Return a chain of (hours after noon, result, bundle that is live afterwards)."""
    events, live = [], None
    for number, (hours, result, after) in enumerate(happened, 1):
        changes = {
            "attempt": str(number),
            "result": result,
            "before": live,
            "to": bundle(number),
            "live": bundle(after) if after is not None else None,
        }
        event = verified(number, **changes).model_copy(update={"at": NOON + timedelta(hours=hours)})
        events.append(event)
        live = changes["live"]
    return verify_chain(chain_of(events), DEV, MODEL)


STORY = chain_with((0, "verified", 1), (1, "refused", 1), (2, "failed", 1), (3, "verified", 4), (5, "verified", 1))


@pytest.mark.parametrize(
    ("hours", "number"),
    [(-0.1, None), (0, 1), (1.5, 1), (2.9, 1), (3, 4), (4.9, 4), (5, 5), (100, 5)],
)
def test_at_time_returns_the_entry_of_the_bundle_live_at_that_time(hours: float, number: int | None) -> None:
    found = at_time(STORY, NOON + timedelta(hours=hours))
    assert (found.record.number if found else None) == number


def test_at_time_returns_none_before_the_first_verification() -> None:
    assert at_time(chain_with((0, "refused", None), (1, "failed", None)), NOON + timedelta(hours=2)) is None
    assert at_time([], NOON) is None


def test_describe_formats_an_entry() -> None:
    event = verified(2, reason='it says "no"').model_copy(update={"at": NOON})
    (entry,) = verify_chain(chain_of([event]), DEV, MODEL)
    assert describe(entry) == "\n".join(
        [
            "    1  2026-03-02 12:00:00 UTC  promotion verified",
            f"       {bundle(1)} → {bundle(2)}",
            "       pull request 2 by mlops[bot], approved by ann, bob",
            "       data houses@2, source " + f"{2:040x}",
            "       deployed from " + f"{2:040x}",
            '       because "it says \\"no\\""',
        ]
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"actor": ""}, "pull request 2 by unknown, approved by ann, bob"),
        ({"pull_request": None}, "by mlops[bot], approved by ann, bob"),
        ({"approvers": ()}, "pull request 2 by mlops[bot]"),
        ({"pull_request": None, "approvers": ()}, "by mlops[bot]"),
        ({"pull_request": None, "actor": ""}, "by unknown, approved by ann, bob"),
        ({"approvers": (), "actor": ""}, "pull request 2 by unknown"),
        ({"source_commit": None}, "data houses@2, source unknown"),
        ({"reason": "zu spät"}, 'because "zu spät"'),
    ],
)
def test_describe_leaves_out_missing_fields(changes: dict[str, object], says: str) -> None:
    (entry,) = verify_chain(chain_of([verified(2, **changes)]), DEV, MODEL)
    assert says in [line.strip() for line in describe(entry).splitlines()]


def test_describe_formats_an_entry_with_few_fields() -> None:
    bare = {"pull_request": None, "approvers": (), "actor": "", "dataset": "", "commit": None, "before": None}
    (entry,) = verify_chain(chain_of([verified(1, **bare).model_copy(update={"at": NOON})]), DEV, MODEL)
    assert describe(entry) == f"    1  2026-03-02 12:00:00 UTC  promotion verified\n       none → {bundle(1)}"


def test_nothing_is_live_after_a_withdrawal() -> None:
    gone = {"action": "withdrawal", "result": "withdrawn", "before": bundle(1), "live": None}
    (entry,) = verify_chain(chain_of([verified(1, **gone)]), DEV, MODEL)
    assert f"       {bundle(1)} → none" in describe(entry).splitlines()


# --- fetched from the registry ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    return with_empty_registry(environment)


def append(descriptor: EnvironmentDescriptor, *numbers: int) -> None:
    for number in numbers:
        Ledger(descriptor, MODEL).append(lambda _, number=number: verified(number))  # type: ignore[misc]


def key_of(number: int) -> str:
    return f"ledger/{MODEL}/{number:010d}.dsse.json"


def note_fetches(descriptor: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the numbers of the records fetched from now on."""
    numbers: list[int] = []
    stored = Ledger.stored

    def noted(ledger: Ledger, number: int) -> store.Stored:
        numbers.append(number)
        return stored(ledger, number)

    monkeypatch.setattr(Ledger, "stored", noted)
    return numbers


def test_only_new_records_are_fetched(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledgers" / "dev"
    assert read_history(folder, MODEL, dev) == []
    append(dev, 1, 2, 3)
    assert len(read_history(folder, MODEL, dev)) == 3
    append(dev, 4, 5)
    numbers = note_fetches(dev, monkeypatch)
    entries = read_history(folder, MODEL, dev, verify=True)
    assert sorted(numbers) == [3, 4, 5], "the last known record is fetched again, and no other"
    assert read_history(folder, MODEL, None, verify=True) == entries
    assert [entry.event.to for entry in entries] == [bundle(number) for number in range(1, 6)]


def test_a_false_date_is_corrected_in_the_history_and_stays_named(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    append(dev, 1)
    forge(dev, MODEL, verified(2).model_copy(update={"at": NOON.replace(year=2099)}))
    append(dev, 3)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    for _ in range(2):  # fetched, and then from the copy
        entries = read_history(tmp_path, MODEL, dev, verify=True)
        (named,) = find_false_dates(entries)
        assert "record 2 of price in dev is dated 2099-03-02 12:00:00 UTC, but was stored at " in named
        assert f"  {entries[1].stored:%Y-%m-%d %H:%M:%S} UTC  promotion verified" in describe(entries[1])
        found = at_time(entries, soon)
        assert found is not None and found.record.number == 3
    assert len(read_history(tmp_path, MODEL, None, verify=True)) == 3, "the copy verifies offline"


def test_a_truncated_copy_is_completed(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    append(dev, 1, 2, 3)
    entries = read_history(tmp_path, MODEL, dev)
    path = tmp_path / f"{MODEL}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_history(tmp_path, MODEL, dev, verify=True) == entries
    assert path.read_bytes() == whole


def test_records_removed_from_the_registry_are_detected(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    append(dev, 1, 2, 3)
    read_history(tmp_path, MODEL, dev)
    boto3.client("s3").delete_object(Bucket=dev.registry_bucket, Key=key_of(3))
    with pytest.raises(BrokenLedgerError, match=r"dev has 2 records; the copy has 3") as caught:
        read_history(tmp_path, MODEL, dev)
    assert caught.value.fix == "someone removed records: look at the object versions in the registry bucket"


def test_a_replaced_record_is_detected(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    """Even if the new chain is signed with the right key."""
    append(dev, 1, 2)
    read_history(tmp_path, MODEL, dev)
    boto3.client("s3").delete_object(Bucket=dev.registry_bucket, Key=key_of(2))
    append(dev, 9)
    with pytest.raises(BrokenLedgerError, match="record 2 of price in dev differs from the copy") as caught:
        read_history(tmp_path, MODEL, dev)
    assert caught.value.fix == "someone replaced records: look at the object versions in the registry bucket"


def test_a_new_record_that_does_not_follow_the_copy_is_not_added(
    environment: EnvironmentDescriptor, tmp_path: Path
) -> None:
    """As if the chain had been rewritten except for the record that is fetched again."""
    one, other = with_empty_registry(environment), with_empty_registry(environment)
    append(one, 1)
    append(other, 7, 8)
    read_history(tmp_path, MODEL, one)
    second = Ledger(other, MODEL).stored(2).content
    boto3.client("s3").put_object(Bucket=one.registry_bucket, Key=key_of(2), Body=second)
    with pytest.raises(BrokenLedgerError) as caught:
        read_history(tmp_path, MODEL, one)
    assert caught.value.what == f"record 2 of {MODEL} in dev does not follow the record before it"
    assert len(read_history(tmp_path, MODEL, None)) == 1


def test_an_invalid_record_is_not_added_to_the_copy(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    append(dev, 1, 2)
    read_history(tmp_path, MODEL, dev)
    before = (tmp_path / f"{MODEL}.jsonl").read_bytes()
    s3 = boto3.client("s3")
    s3.put_object(Bucket=dev.registry_bucket, Key=key_of(3), Body=CHAIN[2])
    with pytest.raises(BrokenLedgerError, match="record 3 of price has no valid signature"):
        read_history(tmp_path, MODEL, dev)
    second = Ledger(dev, MODEL).stored(2).content
    s3.put_object(Bucket=dev.registry_bucket, Key=key_of(3), Body=second)
    with pytest.raises(BrokenLedgerError, match="record 3 of price in dev is in the wrong place"):
        read_history(tmp_path, MODEL, dev)
    assert (tmp_path / f"{MODEL}.jsonl").read_bytes() == before
    assert len(read_history(tmp_path, MODEL, None, verify=True)) == 2


@pytest.mark.parametrize("more", [b"\n", b"\r"])
def test_a_record_with_a_line_break_is_not_added_to_the_copy(
    dev: EnvironmentDescriptor, tmp_path: Path, more: bytes
) -> None:
    append(dev, 1)
    content = Ledger(dev, MODEL).stored(1).content
    boto3.client("s3").put_object(Bucket=dev.registry_bucket, Key=key_of(1), Body=content + more)
    with pytest.raises(BrokenLedgerError, match=r"record 1 of price is not a DSSE envelope.*canonical"):
        read_history(tmp_path, MODEL, dev)
    assert not (tmp_path / f"{MODEL}.jsonl").exists()


def test_a_copy_of_a_recreated_environment_is_an_error(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    write_copy(tmp_path, CHAIN)
    with pytest.raises(MlopsError, match="is not signed with the key of dev") as caught:
        read_history(tmp_path, MODEL, dev)
    assert "delete the folder" in caught.value.fix
