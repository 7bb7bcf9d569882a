"""Open an issue, or comment on the one that is open about the same subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.github.gh import Gh

ALARM_LABEL = "alarm"
"""Label of the issues in which monitors ask people."""


@dataclass(frozen=True)
class Issue:
    """An issue.

    Attributes:
        number: its number.
        url: its web page.
        is_new: True if it was opened now.
    """

    number: int
    url: str
    is_new: bool


def raise_issue(gh: Gh, marker: str, title: str, body: str, labels: Sequence[str], *, once: str) -> Issue:
    """Open an issue, or comment on the open issue of a bot that starts with `marker`.

    A person's issue is never used, even if it starts with the marker. A closed issue is left alone: people closed it.

    Args:
        gh: the repository.
        marker: the beginning of the body by which the issue is found again.
        title: title of a new issue.
        body: its text, or that of the comment, in Markdown.
        labels: labels of a new issue.
        once: hidden text in `body`. If the issue has it already, nothing is added.

    Raises:
        MlopsError: GitHub refused.
    """
    for found in gh.list_all("issues"):
        if "pull_request" in found or not _is_of_a_bot(found) or not str(found.get("body")).startswith(marker):
            continue
        number = int(found["number"])
        comments = gh.list_all(f"issues/{number}/comments")
        if not any(_is_of_a_bot(one) and once in str(one.get("body")) for one in (found, *comments)):
            gh.request("POST", f"repos/{gh.repository}/issues/{number}/comments", {"body": body})
        return Issue(number, str(found["html_url"]), is_new=False)
    made = gh.request(
        "POST",
        f"repos/{gh.repository}/issues",
        {"title": title, "body": f"{marker}\n{body}", "labels": list(labels)},
    )
    return Issue(int(made["number"]), str(made["html_url"]), is_new=True)


def _is_of_a_bot(item: Mapping[str, Any]) -> bool:
    return bool((item.get("user") or {}).get("type") == "Bot")
