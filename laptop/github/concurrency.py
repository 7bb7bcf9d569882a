"""Concurrency groups: who may run, who waits, who is dropped. Pure decisions over the slots in the forge's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LONGEST_QUEUE = 100
"""How many may wait in a group with `queue: max`."""


@dataclass(frozen=True)
class Slot:
    """A place in a group's queue, of a run or of one of its jobs.

    Attributes:
        id: grows; the order of arrival.
        group: the group's name, folded (GitHub compares names without case).
        run: the run's number.
        job: the job's name, "" for the whole run.
        owner: the identity of the process that runs it, "" before one does.
        held: it runs; otherwise it waits.
        stopping: it was told to stop.
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
    """What a new slot does to the others: those that are dropped, and those that are told to stop."""

    dropped: tuple[Slot, ...]
    stopped: tuple[Slot, ...]


def arrive(slots: Sequence[Slot], new: Slot, *, queue: str, cancel_in_progress: bool) -> Arrival:
    """Decide what `new` does to the slots of its group.

    Args:
        slots: all slots, without `new`.
        queue: "single" drops whoever waits already; "max" drops `new` when `LONGEST_QUEUE` wait.
        cancel_in_progress: whoever runs is told to stop.
    """
    waiting = tuple(slot for slot in slots if slot.group == new.group and not slot.held)
    running = tuple(slot for slot in slots if slot.group == new.group and slot.held)
    if queue == "max":
        return Arrival((new,) if len(waiting) >= LONGEST_QUEUE else (), ())
    return Arrival(waiting, running if cancel_in_progress else ())


def may_run(slots: Sequence[Slot], slot: Slot) -> bool:
    """Is it this slot's turn? First in, first out."""
    return not any(other.group == slot.group and other.id < slot.id for other in slots)
