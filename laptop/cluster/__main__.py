"""Process of the cluster: `python -m laptop.cluster HOME TIME_SCALE PORT`.

It ends, with everything that it started, on SIGTERM or when its standard input closes, which happens when the process
that started it dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from laptop.cluster import FORK_SERVER
from laptop.cluster.cluster import Cluster, PortInUse
from laptop.delays import Delays

PORT_IN_USE = 98
"""Exit code if the port is in use: EADDRINUSE."""


async def serve(home: Path, time_scale: float, port: int) -> int:
    """Run a cluster until it must stop. Returns the exit code."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)

    def wait_for_parent() -> None:
        while os.read(0, 64):
            pass
        loop.call_soon_threadsafe(ending.set)

    forks = os.environ.get(FORK_SERVER) != "0"
    cluster = Cluster(home, time_scale=time_scale, fork_server=forks, delays=Delays.read(home))
    try:
        await cluster.start(port)
    except PortInUse:
        return PORT_IN_USE
    threading.Thread(target=wait_for_parent, daemon=True).start()
    await ending.wait()
    await cluster.stop()
    return 0


def main() -> int:
    """Run the command line."""
    home, time_scale, port = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is handled by the parent process
    return asyncio.run(serve(Path(home), float(time_scale), int(port)))


if __name__ == "__main__":
    sys.exit(main())
