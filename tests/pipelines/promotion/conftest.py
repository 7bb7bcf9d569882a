"""A world for the tests of promotions; made once a module, and begun anew for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws import EmulatedAccount
from tests.pipelines.promotion.world import World, running_world
from tests.signed import make_signing_environment


@pytest.fixture(scope="module")
def first_world(account: EmulatedAccount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    dev = make_signing_environment("dev")
    staging = make_signing_environment("staging", dev)
    with running_world(tmp_path_factory.mktemp("world"), dev, staging) as world:
        yield world


@pytest.fixture
def world(first_world: World) -> World:
    first_world.reset()
    return first_world
