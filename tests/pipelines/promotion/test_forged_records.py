"""A record that does not follow the one before it is refused by all that decide by a ledger.

As by a holder of a deploy role, who can sign what the ledger never held, and write it in the next place.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.release import Release
from pipelines.lineage.gather_facts import read_releases
from pipelines.monitoring.model_monitor import find_live
from pipelines.promotion.audit import audit
from pipelines.promotion.facts.gather import gather, read_predecessor
from pipelines.promotion.history import read_history
from pipelines.promotion.live_bundles import live_bundle, release_of_live
from pipelines.promotion.respond import respond
from pipelines.promotion.status import read_model
from pipelines.promotion.withdrawal import check_withdrawal
from pipelines.registry.bundle_quarantine import quarantined
from tests.pipelines.promotion.promotion_project import MODEL, World, WorldTarget
from tests.pipelines.promotion.test_respond import alarm
from tests.pipelines.promotion.test_rollback import back, serve, stop
from tests.pipelines.registry.chains import bundle, forge, verified

pytestmark = pytest.mark.slow

SAID = f"record 3 of {MODEL} in staging does not follow the record before it"


@pytest.fixture
def world(first_world: World) -> World:
    """A model in staging whose newest record is a forged one. It says that the bundle before is live again."""
    first_world.reset(keep_bundles=True)
    first, second = serve(first_world, 1, 2)
    forge(first_world.staging, MODEL, verified(3, before=second, to=first, live=first), previous=bundle(7))
    return first_world


def target(world: World) -> WorldTarget:
    return WorldTarget(world, world.apply)


def a_release(world: World) -> object:
    return world.admit(world.release(world.ready(3), world.register(1)))


def an_alarm(world: World) -> object:
    with world.cluster():
        respond(target(world), alarm(response="roll-back", bundle=world.register(1)), world.said.append)
    return None


def a_gate(world: World) -> object:
    change = world.release(world.ready(3), world.register(1))
    facts = gather(world.project, world.repository, world.descriptors, change)
    raise MlopsError(facts.unknown["live"])


def a_soak(world: World) -> object:
    """The gates of an environment that would promote from this one."""
    return read_predecessor(world.staging, MODEL, world.register(1))


def a_status(world: World) -> object:
    raise MlopsError(read_model(world.staging, MODEL, None, "", datetime.now(UTC)).unseen["ledger"])


def an_audit(world: World) -> object:
    with (
        mock.patch.object(WorldTarget, "drift", return_value=[]),
        mock.patch("pipelines.promotion.audit.running_bundles", return_value={world.register(1)}),
    ):
        return audit(target(world), "staging", world.said.append)


def a_withdrawal(world: World) -> object:
    release = Release(model=MODEL, environment="staging", bundle=None, replaces=world.register(1))
    check_withdrawal(world.staging, release, (), datetime.now(UTC))
    return None


DECISIONS: dict[str, Callable[[World], object]] = {
    "a deployment": a_release,
    "a rollback": back,
    "a stop": stop,
    "an alarm": an_alarm,
    "the gates": a_gate,
    "the soak": a_soak,
    "the status": a_status,
    "an audit": an_audit,
    "a withdrawal": a_withdrawal,
    "a pull request": lambda world: live_bundle(world.descriptors, "staging", MODEL),
    "a correction": lambda world: release_of_live(world.staging, MODEL),
    "a monitor": lambda world: find_live(world.staging, MODEL),
    "the lineage": lambda world: read_releases(world.staging),
    "the history": lambda world: read_history(Path(world.root, ".mlops", "ledgers"), MODEL, world.staging),
}


@pytest.mark.parametrize("decision", DECISIONS)
def test_nothing_is_decided_by_a_record_that_does_not_fit(world: World, decision: str) -> None:
    served, blocked = world.live(), quarantined(world.staging, MODEL)
    with pytest.raises(MlopsError) as caught:
        DECISIONS[decision](world)
    assert SAID in str(caught.value)
    assert (world.live(), quarantined(world.staging, MODEL)) == (served, blocked)
