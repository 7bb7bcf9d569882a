"""Callers of the demo's endpoints: they ask all the time, so that a lost request would be seen."""

from __future__ import annotations

import threading
from contextlib import suppress

from pipelines.declarations.errors import MlopsError
from pipelines.targets import Target

PAUSE_SECONDS = 0.05
"""Between two requests."""

LOOK_SECONDS = 0.3
"""Between two looks whether anything is live."""


class Callers:
    """One caller an environment, each in a thread of its own.

    Args:
        model: that they ask.

    Attributes:
        answered: requests answered, by environment.
        failed: what went wrong, an entry a request.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._ended = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def call(self, target: Target, environment: str) -> None:
        """Ask an environment all the time, as soon as it answers for the first time; asking it already is fine."""
        if environment not in self._threads:
            thread = threading.Thread(target=self._call, args=(target, environment), daemon=True)
            self._threads[environment] = thread
            thread.start()

    def stop(self) -> None:
        """End all calls."""
        self._ended.set()
        for thread in self._threads.values():
            thread.join(10)

    def _call(self, target: Target, environment: str) -> None:
        from pipelines.cli.releases import ask
        from pipelines.serving.probe import open_endpoint

        request = None
        while request is None and not self._ended.wait(LOOK_SECONDS):
            with suppress(MlopsError):  # nothing is live there yet
                request, _ = ask(target, self.model, environment)
        if request is None:
            return
        with open_endpoint(target.descriptor(environment), self.model) as endpoint:
            while not self._ended.wait(PAUSE_SECONDS):
                try:
                    endpoint.infer(request)
                except MlopsError as error:
                    if not self._ended.is_set():
                        self.failed.append(f"{environment}: {error.what}")
                    continue
                self.answered[environment] = self.answered.get(environment, 0) + 1
