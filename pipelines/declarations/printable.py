"""Text of others, made safe to print: in a terminal, on a page, and in the log of a workflow."""

from __future__ import annotations

COMMAND_MARK = "##["
"""Beginning of a command in the log of a GitHub job, anywhere in a line. A line that begins with `::` is one, too
(actions/runner, `ActionCommand.cs`)."""


def printable(text: str, keep: str = "") -> str:
    """Replace control characters, which a terminal would act on, and invisible ones by U+FFFD.

    Args:
        text: the text.
        keep: characters that stay, although they are not printable.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or letter.isprintable() else "\ufffd" for letter in text)


def log_line(line: str) -> str:
    """Return a line that a job printed, so that neither a terminal nor a GitHub runner acts on it."""
    shown = printable(line, keep="\t").replace(COMMAND_MARK, "##\u200b[")
    return shown.replace("::", ":\u200b:", 1) if shown.lstrip().startswith("::") else shown


def shorten(text: str, limit: int = 120) -> str:
    """Cut a text to `limit` printable characters, for messages that quote untrusted values."""
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")
