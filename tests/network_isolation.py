"""Run a command without a network, and trace the system calls with which it would use one.

Linux only. A network namespace has nothing but a loopback interface, and `strace` also sees native code.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.network_watch import is_local

# The loopback interface of a new namespace is down.
_ISOLATED = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
    fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS
os.execvp(sys.argv[1], sys.argv[1:])
"""
_TRACED = "connect,sendto,sendmsg,sendmmsg"
_IPV4 = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)')
_IPV6 = re.compile(r'sin6_port=htons\((\d+)\),.*?inet_pton\(AF_INET6, "([^"]+)"')
_NAME_SERVICE = 53
_RESOLVER = re.compile(r'sun_path="[^"]*systemd/resolve')


@functools.cache
def why_not_isolated() -> str:
    """Return why this machine cannot trace system calls in a network namespace, or ""."""
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    done = subprocess.run(
        isolated(os.devnull, sys.executable, "-c", ""), capture_output=True, text=True, check=False, timeout=60
    )
    return f"a traced network namespace is not permitted: {done.stderr.strip()[:200]}" if done.returncode else ""


def isolated(log: str | Path, *command: str) -> list[str]:
    """Return a command that runs another one without a network and traces its system calls."""
    tracing = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "signal=none",
        "-e",
        f"trace={_TRACED}",
        "-o",
        str(log),
        *command,
    ]
    return ["unshare", "-rn", sys.executable, "-c", _ISOLATED, *tracing]


def leaving(lines: list[str]) -> list[str]:
    """Return the traced system calls that look up a name or leave this machine."""
    found = []
    for line in lines:
        addresses = [match for pattern in (_IPV4, _IPV6) for match in pattern.findall(line)]
        far = any(not is_local(host) or int(port) == _NAME_SERVICE for port, host in addresses)
        if far or _RESOLVER.search(line):
            found.append(line)
    return found
