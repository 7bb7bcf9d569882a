"""Write GitHub-flavored Markdown with untrusted values escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipelines.declarations.printable import printable

LONGEST_CELL = 240
"""Maximum length of an escaped text, in characters."""

_ESCAPES = {
    "|": "\\|",
    "\\": "\\\\",
    "`": "\\`",
    "[": "\\[",  # no link and no image
    "<": "&lt;",
    "&": "&amp;",
    "@": "@\u200b",  # a zero-width space, so GitHub sends no notification
    "#": "#\u200b",
}


_ADDRESS = re.compile(r"(?i)(?:https?|ftp)(?=://)|www(?=\.)")
"""Beginning of an address that GitHub turns into a link by itself."""


def escape(text: str) -> str:
    """Return a text on one line without Markdown, HTML, links, mentions or references.

    It is at most `LONGEST_CELL` long, before the escapes.
    """
    flat = " ".join(text.split())
    cut = flat if len(flat) <= LONGEST_CELL else flat[: LONGEST_CELL - 1] + "…"
    return _ADDRESS.sub("\\g<0>\u200b", "".join(_ESCAPES.get(letter, letter) for letter in printable(cut)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the cells are escaped, the head is not."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(escape(text) for text in row) + " |" for row in rows]


def number(value: float | None, missing: str = "") -> str:
    """Format a number with four significant digits."""
    return missing if value is None else f"{value:.4g}"


def short_digest(digest: str | None) -> str:
    """Return `sha256:` and the first twelve digits of a digest; `none` for None."""
    return digest[:19] if digest else "none"


def link(address: str) -> str:
    """Return a web address as it is, which GitHub turns into a link; escape anything else."""
    return address if re.fullmatch(r"https?://[\w./:@?=&%+-]+", address, re.ASCII) else escape(address)


def details(title: str, text: str, longest: int) -> str:
    """Return a collapsed section with a text in a code block.

    Args:
        title: what is shown while it is collapsed.
        text: shown verbatim, in a fence that it cannot close.
        longest: characters after which the text is cut.
    """
    body = text if len(text) <= longest else text[:longest] + "\n… cut"
    body = printable(body, keep="\n\t")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", body))])
    return f"<details><summary>{escape(title)}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"
