"""Ledgers as witnesses of each other: find records that are gone from the end of a ledger, with all their versions.

A promotion notes where the ledgers of the other environments end. The note is signed with the key of the environment
that promotes, and kept in its own registry. So it survives what happens to the ledger that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry.ledger import BrokenLedgerError, Ledger, SeenLedger


def see_ledgers(others: Mapping[str, EnvironmentDescriptor], model: str) -> dict[str, SeenLedger]:
    """Return environment → the end of its ledger of a model; empty ledgers and those that cannot be read are left out.

    Args:
        others: environment → descriptor, in promotion order.
        model: the model's name.
    """
    found = {}
    for name, descriptor in others.items():
        try:
            head = Ledger(descriptor, model).head()
        except MlopsError:
            continue  # the release of this environment does not depend on it
        if head is not None:
            found[name] = SeenLedger(number=head.record.number, digest=head.digest, key=_key_of(descriptor))
    return found


def check_ledger(descriptors: Mapping[str, EnvironmentDescriptor], environment: str, model: str) -> None:
    """Check that no record of a ledger was deleted or replaced.

    Looks at the versions of its objects, and at what the other environments saw of it.

    Args:
        descriptors: environment → descriptor, for the environments that are up.
        environment: the environment whose ledger to check.
        model: the model's name.

    Raises:
        BrokenLedgerError: a record was deleted or replaced.
        MlopsError: a registry cannot be read.
    """
    here = descriptors[environment]
    ledger = Ledger(here, model)
    ledger.check_versions()
    newest = ledger.newest()
    for name, descriptor in descriptors.items():
        seen = _last_seen(descriptor, environment, model) if name != environment else None
        if seen is None or seen.key != _key_of(here):
            continue
        fix = "find out who removed records (docs/on-call.md#the-ledger-is-broken)"
        if newest < seen.number:
            raise BrokenLedgerError(
                f"the ledger of {model} in {environment} lost records: expected at least {seen.number}, which {name} "
                f"saw, found {newest}",
                fix=fix,
            )
        found = ledger.entry(seen.number).digest
        if found != seen.digest:
            raise BrokenLedgerError(
                f"record {seen.number} of {model} in {environment} is not the one that {name} saw: expected "
                f"{seen.digest}, found {found}",
                fix=fix,
            )


def _last_seen(witness: EnvironmentDescriptor, environment: str, model: str) -> SeenLedger | None:
    """Return what an environment saw last of another one's ledger; None if it never saw it."""
    for entry in Ledger(witness, model).back():
        if environment in entry.event.seen:
            return entry.event.seen[environment]
    return None


def _key_of(descriptor: EnvironmentDescriptor) -> str:
    return digest_of_bytes(descriptor.trusted_keys[descriptor.name].encode()).removeprefix("sha256:")[:16]
