"""An environment that is brought up by hand takes no release live that no gate has judged."""

from __future__ import annotations

import pytest

from pipelines.declarations.live_models import released
from pipelines.promotion.bring_up import UnjudgedReleaseError, bring_up
from pipelines.registry.ledger import Event, Ledger
from tests.pipelines.promotion.promotion_project import MODEL, World, WorldTarget
from tests.pipelines.promotion.test_deploy import NewEnvironment


class RunningEnvironment(WorldTarget):
    """Target whose environment is up. `applied` counts how often the program was applied."""

    applied = 0

    def apply(self, operation: str, environment: str, *, foundation_only: bool = False) -> None:
        assert (operation, environment, foundation_only) == ("up", "staging", False)
        self.applied += 1


@pytest.fixture
def world(first_world: World) -> World:
    first_world.reset(keep_bundles=True)
    return first_world


def record_live(world: World, digest: str) -> None:
    event = Event.of(attempt="first", action="promotion", result="verified", before=None, to=digest, live=digest)
    Ledger(world.staging, MODEL).append(lambda _: event)


def test_a_new_environment_is_created_without_the_releases_of_git(world: World) -> None:
    world.release(world.register(1), None)
    target = NewEnvironment(world)
    bring_up(target, "staging", world.said.append)
    assert target.applied == ["foundation"]
    assert world.said == [
        "staging is created, without images and releases: the gates judge them first. Now run mlops deploy --env "
        "staging"
    ]


def test_a_new_environment_without_releases_is_created_whole(world: World) -> None:
    target = NewEnvironment(world)
    bring_up(target, "staging", world.said.append)
    assert (target.applied, world.said) == (["all"], [])


def test_a_release_that_is_not_live_is_refused(world: World) -> None:
    target, digest = RunningEnvironment(world, world.apply), world.register(1)
    world.release(digest, None)
    with pytest.raises(UnjudgedReleaseError) as caught:
        bring_up(target, "staging", world.said.append)
    assert caught.value.what == (
        f"{MODEL} in staging: expected the release file to name the live bundle, none, found {digest[:19]}; `up` would "
        "apply it without the gates"
    )
    assert str(caught.value.fix).startswith("mlops deploy --env staging, which judges it")
    assert target.applied == 0
    record_live(world, digest)
    bring_up(target, "staging", world.said.append)
    assert target.applied == 1


def test_an_endpoint_is_not_removed_by_a_release_file_that_names_no_bundle(world: World) -> None:
    digest = world.register(1)
    record_live(world, digest)

    target = RunningEnvironment(world, world.apply)
    assert MODEL in released(target.outputs("staging"))
    with pytest.raises(UnjudgedReleaseError, match="found none"):
        bring_up(target, "staging", world.said.append)
    assert target.applied == 0
