"""Measure how long the traffic of a model takes to leave a bundle."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import Rollout, bundle_of, rollout_state
from pipelines.declarations.errors import MlopsError

_LOOK_SECONDS = 0.02


class TrafficWatch:
    """Measures from its creation until all traffic goes to another bundle.

    Args:
        namespace, model: the Rollout.
        bundle: digest of the bundle that the traffic leaves.
        most_seconds: how long to look.
    """

    def __init__(self, namespace: str, model: str, bundle: str, most_seconds: float = 300.0) -> None:
        self._namespace, self._model, self._bundle = namespace, model, bundle
        self._most_seconds = most_seconds
        self._began = time.monotonic()
        self._seconds: float | None = None
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def seconds(self) -> float | None:
        """Wait for the end, and return the seconds; None if the traffic stayed."""
        self._thread.join()
        return self._seconds

    def _look(self) -> None:
        with suppress(MlopsError), connect(self._namespace) as client:  # it only measures
            while time.monotonic() - self._began < self._most_seconds:
                resource = client.get(Rollout, self._model).to_dict()  # type: ignore[no-untyped-call]
                if bundle_of(resource) != self._bundle and rollout_state(resource).moved:
                    self._seconds = time.monotonic() - self._began
                    return
                time.sleep(_LOOK_SECONDS)
