"""Background requests to the demo's endpoints, which reveal dropped requests."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from pipelines.declarations.errors import MlopsError
from pipelines.targets import Target

PAUSE_SECONDS = 0.05
"""Time between two requests."""

LOOK_SECONDS = 0.3
"""Time between two checks that an endpoint is up."""


class Callers:
    """One thread per environment that sends requests.

    Args:
        model: the model whose endpoints are called.

    Attributes:
        answered: environment → number of answered requests.
        failed: one message for each failed request.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def call(self, target: Target, environment: str) -> None:
        """Send requests to an environment from the time it first answers. Idempotent."""
        if environment not in self._threads:
            thread = threading.Thread(target=self._call, args=(target, environment), daemon=True)
            self._threads[environment] = thread
            thread.start()

    def stop(self) -> None:
        """Stop sending requests."""
        self._ended.set()
        for thread in self._threads.values():
            thread.join(10)

    def _call(self, target: Target, environment: str) -> None:
        from pipelines.promotion.predict import predict
        from pipelines.serving.probe import open_endpoint

        request = None
        while request is None and not self._ended.wait(LOOK_SECONDS):
            with suppress(MlopsError):  # nothing is live yet
                request, _ = predict(target, self.model, environment)
        if request is None:
            return
        with open_endpoint(target.descriptor(environment), self.model) as endpoint:
            while not self._ended.wait(LOOK_SECONDS):
                with suppress(MlopsError):  # its load balancer is not ready yet
                    endpoint.infer(request)
                    break
            while not self._ended.wait(PAUSE_SECONDS):
                try:
                    endpoint.infer(request)
                except MlopsError as error:
                    if not self._ended.is_set():
                        seconds = time.monotonic() - self._began
                        self.failed.append(f"{environment}, {seconds:.1f} s after the start: {error.what}")
                    continue
                self.answered[environment] = self.answered.get(environment, 0) + 1
