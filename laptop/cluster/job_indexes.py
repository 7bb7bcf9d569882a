"""Indexes of the pods of an indexed Job, as its status writes them: `0,2-4`."""

from __future__ import annotations

from collections.abc import Iterable


def parse_indexes(text: str) -> set[int]:
    """Return the indexes of a text such as `0,2-4`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """Return indexes as text: runs of three or more as a range."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def first_pending(taken: set[int], number: int, completions: int) -> list[int]:
    """Return at most a number of indexes below `completions` that are not taken, lowest first."""
    return [index for index in range(completions) if index not in taken][:number]
