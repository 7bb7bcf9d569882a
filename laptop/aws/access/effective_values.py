"""Settings that take effect late, as changes of IAM policies and of KMS tags do. Pure state over a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class EffectiveValues(Generic[Value]):
    """Values of which each takes effect a while after it was set.

    Args:
        seconds: the delay.
        unset: the value that is in force before the first one; None makes the first one effective at once.
        clock: returns seconds.
    """

    def __init__(self, seconds: float, unset: Value | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._unset = unset
        self._clock = clock
        self._history: dict[str, list[tuple[float, Value]]] = {}

    def observe(self, key: str, value: Value) -> Value:
        """Note the value that is set now, and return the one in force."""
        if not self._seconds:
            return value
        now = self._clock()
        history = self._history.get(key)
        if history is None:
            history = self._history[key] = []
            if self._unset is not None:
                history.append((now - self._seconds, self._unset))
        if not history:
            history.append((now - self._seconds, value))
        elif history[-1][1] != value:
            history.append((now, value))
        while len(history) > 1 and history[1][0] + self._seconds <= now:
            del history[0]
        return history[0][1]

    def forget(self, key: str) -> None:
        """Forget a deleted object, so that a new one of the same name starts afresh."""
        self._history.pop(key, None)
