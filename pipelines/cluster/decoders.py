"""Decoders of the answers of the Kubernetes API, made before threads share them.

msgspec makes the decoder of a type when it is first needed, and keeps it where other threads see it half-made. Two
threads that need the same type for the first time then end the process with a segmentation fault.
"""

from __future__ import annotations

import threading

from lightkube.core.decoders import decode_list, decode_object, decode_status, decode_watch_event
from lightkube.resources.core_v1 import Pod

_making = threading.Lock()
_made: set[type] = set()


def make_decoders(*resources: type) -> None:
    """Make the decoders of errors, watches, pods and other resources, each once in this process. Thread-safe.

    Args:
        resources: further classes of lightkube that several threads use.
    """
    with _making:
        if not _made:
            decode_status(b"{}")
            decode_watch_event(b'{"type": "ADDED", "object": {}}')
        for resource in {Pod, *resources} - _made:
            decode_list(b'{"items": [], "metadata": {}}', resource)
            decode_object(b"{}", resource)
            _made.add(resource)
