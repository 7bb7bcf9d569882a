"""Decide which runs and jobs of a concurrency group run, wait or are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LONGEST_QUEUE = 100
"""Maximum number of waiting slots in a group with `queue: max`; GitHub's limit."""


@dataclass(frozen=True)
class Slot:
    """A run, or one of its jobs, in the queue of a group.

    Attributes:
        id: increases in the order of arrival.
        group: name of the group in lower case.
        run: number of the run.
        job: name of the job, "" for the whole run.
        owner: identity of the process that runs it, "" before it starts.
        held: it runs; otherwise it waits.
        stopping: a stop was requested.
    """

    id: int
    group: str
    run: int
    job: str
    owner: str = ""
    held: bool = False
    stopping: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Arrival:
    """Effect of a new slot: slots to drop, and slots to stop."""

    dropped: tuple[Slot, ...]
    stopped: tuple[Slot, ...]


def arrive(slots: Sequence[Slot], new: Slot, *, queue: str, cancel_in_progress: bool) -> Arrival:
    """Return the effect of a new slot on its group.

    Args:
        slots: all slots, without the new one.
        new: the new slot.
        queue: "single" drops the slots that wait; "max" drops the new one if `LONGEST_QUEUE` slots wait.
        cancel_in_progress: stop the slots that run.
    """
    waiting = tuple(slot for slot in slots if slot.group == new.group and not slot.held)
    running = tuple(slot for slot in slots if slot.group == new.group and slot.held)
    if queue == "max":
        return Arrival((new,) if len(waiting) >= LONGEST_QUEUE else (), ())
    return Arrival(waiting, running if cancel_in_progress else ())


def may_run(slots: Sequence[Slot], slot: Slot) -> bool:
    """Return whether it is a slot's turn: first in, first out."""
    return not any(other.group == slot.group and other.id < slot.id for other in slots)
