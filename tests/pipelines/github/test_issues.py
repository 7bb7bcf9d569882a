"""One issue for each subject, however often it is raised."""

from __future__ import annotations

import pytest

from pipelines.github.issues import raise_issue
from tests.pipelines.github.fake_github import FakeGitHub, fake_github

MARKER = "<!-- mlops:alarm m1 prod errors -->"


@pytest.fixture
def github() -> FakeGitHub:
    return fake_github()


def raised(github: FakeGitHub, alarm: str, marker: str = MARKER) -> tuple[int, bool]:
    issue = raise_issue(github, marker, "title", f"<!-- {alarm} --> text", ["alarm"], once=f"<!-- {alarm} -->")
    return issue.number, issue.is_new


def test_the_first_alarm_opens_an_issue_and_the_next_one_comments(github: FakeGitHub) -> None:
    assert raised(github, "a") == (1, True)
    assert raised(github, "b") == (1, False)
    assert raised(github, "c", "<!-- another check -->") == (2, True)
    assert [len(found) for found in github.comments.values()] == [1]
    assert github.issues[0]["labels"] == ["alarm"]


def test_an_alarm_that_arrives_twice_adds_nothing(github: FakeGitHub) -> None:
    for alarm in ("a", "a", "b", "b", "a"):
        raised(github, alarm)
    assert len(github.issues) == 1
    assert len(github.comments[1]) == 1


def test_a_closed_issue_is_left_alone(github: FakeGitHub) -> None:
    raised(github, "a")
    github.issues[0]["state"] = "closed"
    assert raised(github, "b") == (2, True)


def test_an_issue_of_a_person_is_never_used(github: FakeGitHub) -> None:
    github.author["type"] = "User"
    raised(github, "a")
    object.__setattr__(github, "author", {"type": "Bot"})
    github.issues[0]["user"] = {"type": "User"}
    assert raised(github, "b") == (2, True)


def test_a_pull_request_with_the_same_beginning_is_not_an_issue(github: FakeGitHub) -> None:
    raised(github, "a")
    github.issues[0]["pull_request"] = {}
    assert raised(github, "b") == (2, True)
