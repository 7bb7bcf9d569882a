"""Free ports on 127.0.0.1 for the processes of pods."""

from __future__ import annotations

import random
import socket

# Below the range from which kernels take ports for outgoing connections, so that none is taken between the choice and
# the process's bind, save by another program's explicit choice; for that there is a retry.
_RANGE = range(20_000, 32_000)


def free_port(taken: set[int]) -> int:
    """A port that is free now and not in `taken`; raises OSError when none can be found."""
    for port in random.sample(_RANGE, 200):
        if port in taken:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on 127.0.0.1")
