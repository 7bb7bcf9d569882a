"""Channel between a confined process and the job that started it, on the side of the process."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO


@contextmanager
def open_channel(channel: int) -> Iterator[tuple[Any, BinaryIO, BinaryIO]]:
    """Yield the task of this process, the stream of what the job sends next, and the stream for answers.

    Args:
        channel: file descriptor for the answers. Processes that this one starts do not get it.
    """
    os.set_inheritable(channel, False)
    given = sys.stdin.buffer
    with os.fdopen(channel, "wb") as answers:
        yield json.loads(given.readline()), given, answers


def next_object(given: BinaryIO) -> Any:
    """Return the next object that the job sends; None at its end."""
    try:
        return pickle.load(given)  # noqa: S301  written by the job that started this process
    except EOFError:
        return None


def answer_job(answers: BinaryIO, header: dict[str, Any], contents: Iterable[bytes] = ()) -> None:
    """Answer: a header, one line of JSON, and bytes whose number it says."""
    answers.write(json.dumps(header).encode() + b"\n")
    for content in contents:
        answers.write(content)
    answers.flush()
