"""One issue for each subject, however often it is raised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.github.gh import Gh
from pipelines.github.issues import raise_issue

MARKER = "<!-- mlops:alarm m1 prod errors -->"


class FakeGitHub(Gh):
    """Keeps issues and comments."""

    issues: list[dict[str, Any]]
    comments: dict[int, list[dict[str, Any]]]
    author: dict[str, str]

    def list_all(self, path: str) -> list[dict[str, Any]]:
        if path == "issues":
            return [one for one in self.issues if one["state"] == "open"]
        return self.comments.get(int(path.split("/")[1]), [])

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        assert method == "POST" and body is not None
        made: dict[str, Any] = {**body, "user": self.author, "state": "open"}
        if path.endswith("/comments"):
            self.comments.setdefault(int(path.split("/")[-2]), []).append(made)
            return made
        made |= {"number": len(self.issues) + 1, "html_url": f"https://github.com/acme/mlops/issues/{len(self.issues)}"}
        self.issues.append(made)
        return made


@pytest.fixture
def github() -> FakeGitHub:
    made = FakeGitHub(Path(), "acme/mlops")
    for name, value in (("issues", []), ("comments", {}), ("author", {"type": "Bot"})):
        object.__setattr__(made, name, value)
    return made


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
