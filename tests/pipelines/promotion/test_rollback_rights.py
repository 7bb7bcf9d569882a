"""What a rollback checks before it moves traffic, with a fake cluster and a fake GitHub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from pipelines.cluster.access import Permission
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.promotion import rollback_rights
from pipelines.promotion.rollback_rights import MissingRightsError, check_rights
from pipelines.registry import store
from pipelines.registry.ledger import Event, Ledger
from tests.clones import git
from tests.pipelines.promotion.promotion_project import MODEL, World

pytestmark = pytest.mark.slow

GOOD = "sha256:" + "a" * 64
RULESET = {
    "id": 7,
    "name": "main",
    "target": "branch",
    "enforcement": "active",
    "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"]}},
}


@pytest.fixture
def cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """Stand in for the cluster: `denied` lists the missing permissions, `try_change` rejects a change."""
    event = Event.of(attempt="1", action="promotion", result="verified", before=None, to=GOOD, live=GOOD)
    Ledger(world.staging, MODEL).append(lambda _: event)
    made = mock.Mock(denied=[])

    @contextmanager
    def connect(_: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(rollback_rights, "connect", connect)
    monkeypatch.setattr(rollback_rights, "find_denied", lambda *_: made.denied)
    monkeypatch.setattr(rollback_rights, "try_change", made.try_change)
    return made


def ruled_by(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let a ruleset be in force on GitHub."""

    def get(_: Gh, path: str) -> Any:
        return [RULESET] if path == "rulesets" else {**RULESET, **changes}

    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    monkeypatch.setattr(Gh, "get", get)


def check(world: World) -> None:
    check_rights(world.project, world.staging, MODEL, GOOD, world.said.append)


def test_checking_rights_changes_nothing(world: World, cluster: mock.Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    ruled_by(monkeypatch, current_user_can_bypass="always")
    state, main = world.end_state(), git(world.root, "rev-parse", "origin/main")
    check(world)
    assert world.end_state() == state
    assert git(world.root.parent / "origin.git", "rev-parse", "main") == main
    assert world.said == []
    cluster.try_change.assert_called_once_with("models-staging", MODEL, GOOD)


def test_every_missing_right_is_named_at_once(
    world: World, cluster: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled_by(monkeypatch, current_user_can_bypass="never")
    cluster.denied = [Permission("patch", "rollouts/status", "argoproj.io")]
    cluster.try_change.side_effect = MlopsError("the cluster rejected a request: forbidden")
    denied = store.AccessDeniedError("may not write the ledger")
    with mock.patch.object(store, "put_new", side_effect=denied), pytest.raises(MissingRightsError) as caught:
        check(world)
    assert caught.value.what.splitlines() == [
        f"a rollback of {MODEL} in staging would stop half-way; traffic was not moved:",
        "  may not patch rollouts/status.argoproj.io in models-staging",
        "  the cluster rejected a request: forbidden",
        "  may not write the ledger",
        "  the ruleset 'main' lets this token push to main: expected always, found never",
    ]
    assert caught.value.fix == "run the workflow `rollback` instead, or get these rights"


def test_an_origin_that_does_not_answer_is_a_missing_right(world: World, cluster: mock.Mock) -> None:
    git(world.root, "remote", "set-url", "origin", str(world.root.parent / "none"))
    try:
        with pytest.raises(MissingRightsError, match="would stop half-way"):
            check(world)
    finally:
        git(world.root, "remote", "set-url", "origin", str(world.root.parent / "origin.git"))


def test_what_github_does_not_show_is_said_and_does_not_stop_a_rollback(
    world: World, cluster: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled_by(monkeypatch)
    check(world)
    monkeypatch.setattr(Gh, "get", mock.Mock(side_effect=MlopsError("gh api: 503")))
    check(world)
    assert world.said == [
        "whether the ruleset 'main' lets this token push is not visible",
        "whether the rules of main let this token push could not be read: gh api: 503",
    ]


def test_a_ruleset_that_is_not_in_force_does_not_count(
    world: World, cluster: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled_by(monkeypatch, current_user_can_bypass="never", enforcement="disabled")
    check(world)


def test_what_cannot_be_known_during_an_outage_of_github_stops_no_rollback(world: World, cluster: mock.Mock) -> None:
    said: list[str] = []
    with world.origin_down():
        check_rights(world.project, world.staging, MODEL, GOOD, said.append)
    assert len(said) == 1 and said[0].startswith("whether main can be changed is not known: git ")
