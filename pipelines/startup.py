"""How a short-lived process of this project starts."""

from __future__ import annotations

import atexit
import gc


def spare_the_collector() -> None:
    """Hardly look for garbage in this process.

    The SDKs and the scientific libraries define thousands of classes, none of which is garbage: to look for it, while
    they are imported and again at the end, takes a quarter of the time of a command or a job that is over in seconds.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
