"""Ledgers of several environments as witnesses of each other."""

from __future__ import annotations

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry.ledger import BrokenLedgerError, Event, Ledger, SeenLedger, new_attempt
from pipelines.registry.ledger_witnesses import check_ledger, see_ledgers
from tests.aws import EmulatedAccount
from tests.pipelines.registry.chains import MODEL, bundle, verified
from tests.signing_environments import make_key, make_signing_environment, with_empty_registry

pytestmark = pytest.mark.slow

Environments = dict[str, EnvironmentDescriptor]


@pytest.fixture(scope="module")
def provisioned(account: EmulatedAccount) -> Environments:
    return {name: make_signing_environment(name) for name in ("dev", "prod")}


@pytest.fixture
def environments(provisioned: Environments) -> Environments:
    """Two environments whose registries keep no versions: what is deleted there leaves no trace."""
    return {name: with_empty_registry(descriptor) for name, descriptor in provisioned.items()}


def append(descriptor: EnvironmentDescriptor, **changes: object) -> None:
    event: Event = verified(1, attempt=new_attempt(), before=None, **changes)
    Ledger(descriptor, MODEL).append(lambda _: event)


def remove(descriptor: EnvironmentDescriptor, number: int) -> None:
    key = f"ledger/{MODEL}/{number:010d}.dsse.json"
    boto3.client("s3").delete_object(Bucket=descriptor.registry_bucket, Key=key)


@pytest.fixture
def witnessed(environments: Environments) -> Environments:
    """Environments of which dev saw two records of prod's ledger, and then recorded a rollback."""
    dev, prod = environments.values()
    append(prod)
    append(prod)
    append(dev, seen=see_ledgers({"prod": prod}, MODEL))
    append(dev, action="rollback")
    return environments


def test_a_record_notes_where_other_ledgers_end(witnessed: Environments) -> None:
    seen = Ledger(witnessed["dev"], MODEL).entry(1).event.seen
    head = Ledger(witnessed["prod"], MODEL).head()
    assert head is not None
    assert set(seen) == {"prod"}
    assert (seen["prod"].number, seen["prod"].digest) == (2, head.digest)
    for environment in witnessed:
        check_ledger(witnessed, environment, MODEL)
    append(witnessed["prod"])
    check_ledger(witnessed, "prod", MODEL)


@pytest.mark.parametrize("gone", [(2,), (1, 2)])
def test_records_that_are_gone_with_all_their_versions_are_missed(
    witnessed: Environments, gone: tuple[int, ...]
) -> None:
    for number in gone:
        remove(witnessed["prod"], number)
    expected = rf"the ledger of price in prod lost records: expected at least 2, which dev saw, found {2 - len(gone)}"
    with pytest.raises(BrokenLedgerError, match=expected):
        check_ledger(witnessed, "prod", MODEL)


def test_a_rewritten_end_is_not_the_one_that_was_seen(witnessed: Environments) -> None:
    remove(witnessed["prod"], 2)
    append(witnessed["prod"])
    with pytest.raises(BrokenLedgerError, match="record 2 of price in prod is not the one that dev saw"):
        check_ledger(witnessed, "prod", MODEL)


def test_the_ledger_of_an_environment_that_was_created_again_begins_again(witnessed: Environments) -> None:
    arn, pem = make_key()
    changes = {"signing_key": arn, "trusted_keys": {"prod": pem}}
    again = with_empty_registry(witnessed["prod"].model_copy(update=changes))
    check_ledger({**witnessed, "prod": again}, "prod", MODEL)


def test_a_ledger_that_cannot_be_read_is_left_out(environments: Environments) -> None:
    nowhere = environments["prod"].model_copy(update={"registry_bucket": "does-not-exist-1a2b"})
    append(environments["dev"])
    assert see_ledgers({"prod": nowhere, "dev": environments["dev"]}, MODEL).keys() == {"dev"}
    assert see_ledgers({"prod": environments["prod"]}, MODEL) == {}


def test_an_event_keeps_the_nearest_of_many_ledgers() -> None:
    seen = {f"e{number}": SeenLedger(number=1, digest=bundle(1), key="a" * 16) for number in range(9)}
    assert list(verified(1, seen=seen).seen) == ["e5", "e6", "e7", "e8"]
