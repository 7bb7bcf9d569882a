"""What a pull request is refused for besides the gates."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.judge import judge_change
from pipelines.targets import Preview
from tests.pipelines.promotion.promotion_project import World, WorldTarget
from tests.pipelines.promotion.test_deploy import deploy_accepted

pytestmark = pytest.mark.slow


class Failing(WorldTarget):
    """A target whose program cannot be applied."""

    def preview(self, environment: str) -> Preview:
        return Preview("the type of `min_replicas` is wrong", problem="the type of `min_replicas` is wrong")


@pytest.mark.parametrize("kind", ["release", "correction", "withdrawal"])
def test_a_change_is_refused_before_the_merge_if_the_program_cannot_be_applied(world: World, kind: str) -> None:
    live = world.ready(1)
    deploy_accepted(world, world.release(live, None))
    if kind == "correction":
        world.release(world.register(7), live)
    base = world.repository.head()
    world.release(*{"release": (world.ready(2), live), "correction": (live, None), "withdrawal": (None, live)}[kind])
    comments: list[str] = []

    def comment(_gh: Any, number: int, _marker: str, text: str) -> None:
        assert number == 5
        comments.append(text)

    with (
        mock.patch("pipelines.github.pull_requests.comment", comment),
        mock.patch("pipelines.github.gh.Gh.find"),
        pytest.raises(MlopsError) as caught,
    ):
        judge_change(Failing(world, lambda: None), base, 5, world.said.append)
    assert caught.value.what == "refused: preview: the program of staging cannot be applied; see the comment"
    assert len(comments) == 1 and "the type of `min_replicas` is wrong" in comments[0]
