"""The process of the emulated account: `python -m laptop.aws HOME PORT REGION`.

It writes `HOME/account.json` (readable by its owner only) once it listens, and ends on SIGTERM or when its standard
input closes, which happens when the process that started it dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from laptop.aws.account import ISSUERS, write_account
from laptop.aws.emulator import emulate, warm_up


def main(home: Path, port: int, region: str) -> int:
    """Serves until it is told to stop. Returns the exit code: 98 when the port is in use."""
    try:
        emulator = emulate(home / ISSUERS, port)
    except (OSError, SystemExit):
        # werkzeug ends the process by itself when the address is taken.
        return 98
    write_account(home, emulator, region)

    def stop(*_: object) -> None:
        threading.Thread(target=emulator.server.shutdown, daemon=True).start()

    def stop_with_parent() -> None:
        while os.read(0, 64):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is for the process that started this one
    threading.Thread(target=stop_with_parent, daemon=True).start()
    threading.Thread(target=warm_up, daemon=True).start()
    emulator.server.serve_forever(poll_interval=0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
