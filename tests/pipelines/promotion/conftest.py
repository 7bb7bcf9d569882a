"""A world for the tests of promotions, made once a module and begun anew for each test; and a clone for git alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws import EmulatedAccount
from tests.pipelines.promotion.world import World, commit_all, git, running_world
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


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a bare origin with one commit."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    root = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "clone")
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    (root / "README.md").write_text("hello\n")
    commit_all(root, "start")
    return root
