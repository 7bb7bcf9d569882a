"""What a run did, and who is told while it goes on."""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path
from typing import Protocol

from laptop.engine.steps import Kind, Step
from pipelines.declarations.errors import MlopsError


class Progress(Protocol):
    """Who is told of a run while it goes on. Calls come from several threads."""

    def began(self, step: Step) -> None:
        """A step that takes time has begun."""

    def ended(self, step: Step) -> None:
        """A step has ended, well or not."""

    def noticed(self, text: str) -> None:
        """Something worth a line."""


class Report:
    """The steps of a run, in the order in which they ended.

    Args:
        progress: who is told.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[Step] = []
        self._lock = threading.Lock()

    @property
    def steps(self) -> tuple[Step, ...]:
        with self._lock:
            return tuple(self._steps)

    @property
    def failures(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.error)

    def began(self, step: Step) -> None:
        """A step has begun."""
        self._progress.began(step)

    def ended(self, step: Step) -> None:
        """A step has ended."""
        with self._lock:
            self._steps.append(step)
        self._progress.ended(step)

    def failed(self, kind: Kind, urn: str, error: Exception, began: float) -> None:
        """A step has failed; `began` is of `time.monotonic`."""
        self.ended(Step(kind, urn, error=reason_of(error), seconds=time.monotonic() - began))

    def noticed(self, text: str) -> None:
        """Something worth a line."""
        self._progress.noticed(text)


def reason_of(error: Exception) -> str:
    """What went wrong, for people; a defect is shown with the place of the code that has it."""
    if isinstance(error, MlopsError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
