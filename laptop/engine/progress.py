"""Progress and report of a run."""

from __future__ import annotations

import json
import threading
import time
import traceback
from pathlib import Path
from typing import Protocol

from laptop.engine.provider import IncompleteError
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.engine.state_file import SECRET_MASK
from laptop.engine.values import Properties, leaves, lookup
from pipelines.declarations.errors import MlopsError

SHORTEST_SECRET = 3
"""Shorter secrets are not masked in messages: every other word would be."""


class RunProgress(Protocol):
    """Receives the events of a run. Calls come from several threads."""

    def began(self, step: ResourceStep) -> None:
        """Receive the start of a step that takes time."""

    def ended(self, step: ResourceStep) -> None:
        """Receive a step that succeeded or failed."""

    def noticed(self, text: str) -> None:
        """Receive a message."""


class RunReport:
    """The steps of a run, in the order in which they ended.

    Args:
        progress: receives every event.
    """

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._steps: list[ResourceStep] = []
        self._hidden: set[str] = set()
        self._lock = threading.Lock()

    def hide(self, *bags: Properties) -> None:
        """Mask the secrets of properties in every error and message from now on: a provider may quote them."""
        texts = {
            form
            for properties in bags
            for path in properties.secrets
            for _, value in leaves(lookup(properties.values, path))
            if len(text := str(value)) >= SHORTEST_SECRET
            for form in (text, json.dumps(text)[1:-1], repr(text)[1:-1])
        }
        with self._lock:
            self._hidden |= texts

    def _masked(self, text: str) -> str:
        with self._lock:
            hidden = sorted(self._hidden, key=len, reverse=True)
        for secret in hidden:
            text = text.replace(secret, SECRET_MASK)
        return text

    @property
    def steps(self) -> tuple[ResourceStep, ...]:
        with self._lock:
            return tuple(self._steps)

    @property
    def failures(self) -> tuple[ResourceStep, ...]:
        return tuple(step for step in self.steps if step.error)

    def began(self, step: ResourceStep) -> None:
        """Report the start of a step."""
        self._progress.began(step)

    def ended(self, step: ResourceStep) -> None:
        """Add a step."""
        with self._lock:
            self._steps.append(step)
        self._progress.ended(step)

    def failed(self, kind: StepKind, urn: str, error: Exception, began: float) -> None:
        """Add a failed step; `began` is its start by `time.monotonic`."""
        self.ended(ResourceStep(kind, urn, error=self._masked(reason_of(error)), seconds=time.monotonic() - began))

    def noticed(self, text: str) -> None:
        """Report a message."""
        self._progress.noticed(self._masked(text))


def reason_of(error: Exception) -> str:
    """Describe an error. An unexpected one is shown with its file and line."""
    if isinstance(error, MlopsError | IncompleteError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
