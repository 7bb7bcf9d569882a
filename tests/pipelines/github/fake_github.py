"""Repository on GitHub that keeps issues and comments in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.github.gh import Gh


class FakeGitHub(Gh):
    """Keeps issues and comments.

    Attributes:
        issues: all issues, in order.
        comments: number of an issue → its comments.
        author: who writes.
    """

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


def fake_github() -> FakeGitHub:
    """Return a repository without issues, in which a bot writes."""
    made = FakeGitHub(Path(), "acme/mlops")
    for name, value in (("issues", []), ("comments", {}), ("author", {"type": "Bot"})):
        object.__setattr__(made, name, value)
    return made
