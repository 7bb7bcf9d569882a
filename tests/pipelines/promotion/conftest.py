"""Fixtures: a project to promote in, set up once a module and reset for each test, and a plain clone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws import EmulatedAccount
from tests.clones import make_clone
from tests.pipelines.promotion.promotion_project import World, running_world
from tests.signing_environments import make_signing_environment


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


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of a bare origin with one commit."""
    return make_clone(tmp_path)
