"""Average number of requests in flight, which the autoscaler can add pods by.

A server answers one request after another, so those that wait are where it cannot count them: in the buffers of their
connections. But all that one turn of the event loop answers were there when it began. So a turn counts with the number
of its answers for as long as it takes, and the time between two turns counts as zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import exp
from time import perf_counter

AVERAGED_SECONDS = 15.0
"""Time constant of the average: what happened this long ago counts 1/e as much. Autoscalers look every 15 seconds."""


class RequestConcurrency:
    """Exponential moving average of the requests in flight. Only the event loop may use it.

    Args:
        clock: returns seconds, like `time.perf_counter`.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._average = 0.0
        self._until = clock()
        self._turn_began = 0.0
        self._answers = 0

    def answered(self, start: float) -> None:
        """Count an answer of this turn of the event loop.

        Args:
            start: time at which the server began with the request.
        """
        self._answers += 1
        if self._answers == 1:
            self._turn_began = start
            asyncio.get_running_loop().call_soon(self.end_turn)

    def end_turn(self) -> None:
        """Take the turn into the average."""
        end = self._clock()
        # A request whose body was awaited began before the end of other turns.
        self._pass_time(max(self._turn_began, self._until), 0)
        self._pass_time(end, self._answers)
        self._answers = 0

    def average(self) -> float:
        """Return the average until now."""
        self._pass_time(self._clock(), 0)
        return self._average

    def _pass_time(self, until: float, in_flight: int) -> None:
        kept = exp((self._until - until) / AVERAGED_SECONDS)
        self._average = in_flight + (self._average - in_flight) * kept
        self._until = until
