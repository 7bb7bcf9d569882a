"""Writer of an inference log in a thread, so that a test sees what it puts."""

from __future__ import annotations

import socket
import threading
from functools import partial

from pipelines.serving.log_writer import Write, serve_log
from pipelines.serving.log_writer_process import StartLogWriter


class ThreadWriter:
    """A writer in a thread.

    Args:
        write: puts an object.
    """

    def __init__(self, write: Write) -> None:
        self.channel, other = socket.socketpair()
        self._thread = threading.Thread(target=serve_log, args=(other, write), daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Wait until the thread has ended, for some seconds."""
        self._thread.join(seconds)


def in_thread(write: Write) -> StartLogWriter:
    """Return a function that starts a writer in a thread."""
    return partial(ThreadWriter, write)
