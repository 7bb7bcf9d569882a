"""Load generator: sends one request repeatedly over persistent connections, each waiting for its answer.

Plain sockets and epoll in one thread cost a fraction of any server's time, so the server is the bottleneck. `Load.busy`
shows whether it was.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """Result of one round.

    Attributes:
        rate: answers per second.
        p50, p99: latencies, in seconds.
        busy: CPU time of the server divided by the duration of the round.
    """

    rate: float
    p50: float
    p99: float
    busy: float


def request(url: str, body: bytes) -> bytes:
    """Build an HTTP request."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def put_load(
    url: str, body: bytes, *, connections: int, seconds: float, process: int, settle_seconds: float = 0.0
) -> Load:
    """Send requests for a while, one after another on each connection.

    Args:
        url: URL of the inference endpoint.
        body: body of each request.
        connections: number of connections.
        seconds: duration of the load.
        process: id of the server's process, to read its CPU time.
        settle_seconds: time after the load in which the server finishes its work; its CPU time counts.

    Raises:
        AssertionError: an answer is not 200.
    """
    parts, content = urlsplit(url), request(url, body)
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(connections):
        connection = socket.create_connection((str(parts.hostname), parts.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection, select.EPOLLIN)
        sockets[connection.fileno()] = connection
    sent = dict.fromkeys(sockets, 0.0)
    parts_of: dict[int, bytes] = {}
    latencies: list[float] = []
    clock = time.perf_counter
    computing = cpu_seconds(process)
    start = clock()
    for number, connection in sockets.items():
        sent[number] = clock()
        connection.sendall(content)
    end = start + seconds
    now = start
    while now < end:
        for number, _ in poll.poll():
            answer = sockets[number].recv(65536)
            assert answer, "the server closed the connection"
            if number in parts_of:
                answer = parts_of.pop(number) + answer
            if not is_whole(answer):
                parts_of[number] = answer
                continue
            now = clock()
            latencies.append(now - sent[number])
            sent[number] = now
            sockets[number].send(content)
    elapsed = now - start
    time.sleep(settle_seconds)
    busy = (cpu_seconds(process) - computing) / elapsed
    for connection in sockets.values():
        connection.close()
    poll.close()
    latencies.sort()
    count = len(latencies)
    return Load(count / elapsed, latencies[count // 2], latencies[min(count - 1, count * 99 // 100)], busy)


def is_whole(answer: bytes) -> bool:
    """Return True if a response is complete.

    Raises:
        AssertionError: the response is not a 200 with a content length.
    """
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]
    at = answer.lower().find(b"content-length: ", 0, end + 2)
    assert at > 0, answer[:500]
    length = int(answer[at + 16 : answer.index(b"\r\n", at)])
    return len(answer) >= end + 4 + length


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process with all its threads, in seconds.

    Linux derives the id of the clock from that of the process, as clock_getcpuclockid(3) does. /proc counts in steps of
    10 ms, which is too coarse for short rounds.
    """
    return time.clock_gettime((~process << 3) | 2)


def resident(process: int) -> int:
    """Return the resident memory of a process in bytes, from /proc."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
