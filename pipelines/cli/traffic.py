"""Callers of the demo's endpoints: they ask all the time, so that a lost request would be seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

PAUSE_SECONDS = 0.1


class Callers:
    """One caller an environment, each in a thread of its own.

    Args:
        model: that they ask.
        request: what they ask, an inference request.

    Attributes:
        answered: requests answered, by environment.
        failed: environment → what went wrong.
    """

    def __init__(self, model: str, request: dict[str, Any]) -> None:
        self.model = model
        self.request = request
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._ended = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def call(self, descriptor: EnvironmentDescriptor) -> None:
        """Ask an environment from now on; asking it already is fine."""
        if descriptor.name not in self._threads:
            thread = threading.Thread(target=self._call, args=(descriptor,), daemon=True)
            self._threads[descriptor.name] = thread
            thread.start()

    def wait_for(self, environment: str, requests: int, on_wait: Callable[[], None], deadline: float = 30.0) -> None:
        """Wait until an environment has answered a number of requests more.

        Raises:
            MlopsError: it did not.
        """
        wanted = self.answered.get(environment, 0) + requests
        began = time.monotonic()
        on_wait()
        while self.answered.get(environment, 0) < wanted:
            if time.monotonic() - began > deadline or self.failed:
                raise MlopsError(f"{environment} does not answer: {'; '.join(self.failed) or 'too slow'}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End all calls."""
        self._ended.set()
        for thread in self._threads.values():
            thread.join(10)

    def _call(self, descriptor: EnvironmentDescriptor) -> None:
        from pipelines.promotion.endpoint import connected

        with connected(descriptor, self.model) as endpoint:
            while not self._ended.wait(PAUSE_SECONDS):
                try:
                    endpoint.infer(self.request)
                except MlopsError as error:
                    if not self._ended.is_set():
                        self.failed.append(f"{descriptor.name}: {error.what}")
                    continue
                self.answered[descriptor.name] = self.answered.get(descriptor.name, 0) + 1
