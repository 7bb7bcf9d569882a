"""What a confined process and the job that started it say to each other."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from typing import Any, BinaryIO


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
