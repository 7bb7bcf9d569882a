"""Process of the laptop's AWS account: `python -m laptop.aws HOME PORT REGION`.

It writes `HOME/account.json` (readable by its owner only) once it listens. It ends on SIGTERM, or when its standard
input closes because its parent died.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from laptop.aws.account import ISSUERS, write_account
from laptop.aws.emulator import emulate, warm_up
from laptop.delays import Delays


def main(home: Path, port: int, region: str) -> int:
    """Serve until stopped. Returns the exit code, which is 98 if the port is in use."""
    try:
        emulator = emulate(home / ISSUERS, port, Delays.read(home.parent))
    except (OSError, SystemExit):
        # werkzeug exits if the address is in use.
        return 98
    write_account(home, emulator, region)

    def stop(*_: object) -> None:
        threading.Thread(target=emulator.server.shutdown, daemon=True).start()

    def stop_with_parent() -> None:
        while os.read(0, 64):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is handled by the parent process
    threading.Thread(target=stop_with_parent, daemon=True).start()
    threading.Thread(target=warm_up, daemon=True).start()
    emulator.server.serve_forever(poll_interval=0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
