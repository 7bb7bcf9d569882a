"""HTTP connections to pods through the Kubernetes API, as `kubectl port-forward` makes them.

The kubelet connects from inside the pod, so no network policy and no private network is in the way. Each connection is
a WebSocket of the subprotocol `v4.channel.k8s.io`. A message begins with the number of its channel: the first channel
carries the bytes of the connection, the second an error as text. The first message of each names the port.
"""

from __future__ import annotations

import http.client
import io
import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx2
from httpx2.websockets import HTTPXWSException, WebSocketSession, WebSocketUpgradeError
from lightkube import Client
from lightkube.config import client_adapter

from pipelines.cluster.connection import SIGN_IN, read_with_retry
from pipelines.declarations.errors import MlopsError

SUBPROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
"""Channels of the first port."""

LARGEST_MESSAGE = 1 << 20
"""Size limit of a WebSocket message, in bytes. A kubelet sends at most 32 KiB."""

CHUNK = 1 << 15
"""Bytes sent in one message."""


class PortForwardDeniedError(MlopsError):
    """The caller may not forward ports of pods, or is not signed in."""


class PodConnections:
    """Opens connections to the pods of a cluster, with the cluster's credentials.

    Args:
        http_client: client of the Kubernetes API.
    """

    def __init__(self, http_client: httpx2.Client) -> None:
        self._client = http_client

    def connection(self, namespace: str, pod: str, port: int, *, timeout: float) -> http.client.HTTPConnection:
        """Return an HTTP connection to a port of a pod, which is opened by the first request.

        Args:
            namespace, pod: the pod.
            port: port that the pod listens on.
            timeout: timeout in seconds to connect, and to wait for data.
        """
        return _PodConnection(self, namespace, pod, port, timeout)

    def open(self, namespace: str, pod: str, port: int, timeout: float) -> ForwardedSocket:
        """Forward a port of a pod. Credentials that have expired get some time to be renewed.

        Raises:
            PortForwardDeniedError: the caller lacks the permission.
            OSError: the cluster or the pod does not answer.
        """
        # Encrypted like every request to the API: the scheme follows from the base URL.
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        with ExitStack() as stack:

            def upgrade() -> WebSocketSession:
                try:
                    return stack.enter_context(
                        self._client.websocket(
                            path,
                            subprotocols=[SUBPROTOCOL],
                            params={"ports": str(port)},
                            max_message_size_bytes=LARGEST_MESSAGE,
                            timeout=timeout,
                        )
                    )
                except WebSocketUpgradeError as error:
                    answer = error.response
                    raise httpx2.HTTPStatusError(str(error), request=answer.request, response=answer) from None

            try:
                # Who asks for this waits through outages: the pods may be others afterwards.
                session = read_with_retry(upgrade, outage_seconds=0.0)
            except httpx2.HTTPStatusError as error:
                raise _refusal(error.response, namespace, pod) from None
            except (httpx2.TransportError, HTTPXWSException) as error:
                raise OSError(f"the Kubernetes API does not forward a port of {pod}: {error}") from None
            stack.callback(_end_reading, session)
            return ForwardedSocket(session, stack.pop_all(), timeout)


@contextmanager
def pod_connections(client: Client) -> Iterator[PodConnections]:
    """Open connections to pods with the server and the credentials of a client."""
    parameters = client_adapter.ConnectionParams(timeout=httpx2.Timeout(10))
    with client_adapter.Client(client.config, parameters) as http_client:
        http_client.event_hooks = {"response": [_read_refusal]}
        yield PodConnections(http_client)


def _end_reading(session: WebSocketSession) -> None:
    """Let the session's reading thread end before its socket is closed.

    A thread that still reads from a closed socket takes bytes from the next socket with the same file descriptor.
    """
    opened = session.stream.get_extra_info("socket")
    with suppress(OSError, TimeoutError, HTTPXWSException):
        opened.shutdown(socket.SHUT_RDWR)
        while True:
            session.receive(timeout=1)


def _read_refusal(response: httpx2.Response) -> None:
    """Read the body of an answer that is not a WebSocket, while its connection is open."""
    if response.status_code != httpx2.codes.SWITCHING_PROTOCOLS:
        response.read()


def _refusal(response: httpx2.Response, namespace: str, pod: str) -> Exception:
    """Return the error for an answer that is not a WebSocket."""
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text[:200]
    if response.status_code in (401, 403):
        return PortForwardDeniedError(
            f"the cluster does not let you forward a port of the pod {pod} in {namespace}: {message}",
            fix=f"allow create and get of pods/portforward in {namespace}"
            if response.status_code == httpx2.codes.FORBIDDEN
            else SIGN_IN,
        )
    return OSError(f"the cluster does not forward a port of {pod}: status {response.status_code}: {message}")


class ForwardedSocket:
    """The methods of a socket that `http.client` uses, over a forwarded port.

    Args:
        session: the WebSocket.
        resources: closed with the socket.
        timeout: seconds to wait for data.
    """

    def __init__(self, session: WebSocketSession, resources: ExitStack, timeout: float) -> None:
        self._session = session
        self._resources = resources
        self._timeout = timeout
        self._named: set[int] = set()
        self._received: deque[bytes] = deque()
        self._ended = False

    def sendall(self, data: Any) -> None:
        """Send bytes.

        Raises:
            OSError: the connection is broken.
        """
        content = bytes(data)
        try:
            for start in range(0, len(content), CHUNK):
                self._session.send_bytes(bytes((DATA,)) + content[start : start + CHUNK])
        except HTTPXWSException as error:
            raise ConnectionResetError(f"the forwarded connection was closed: {error}") from None

    def receive(self, most: int) -> bytes:
        """Return at most `most` bytes; b"" at the end of the connection.

        Raises:
            OSError: the pod refuses the connection, or does not answer in time.
        """
        while not self._received and not self._ended:
            self._receive_message()
        if not self._received:
            return b""
        first = self._received.popleft()
        if len(first) > most:
            self._received.appendleft(first[most:])
        return first[:most]

    def _receive_message(self) -> None:
        try:
            message = self._session.receive_bytes(timeout=self._timeout)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout:g} s") from None
        except HTTPXWSException:
            self._ended = True
            return
        channel, content = message[0] if message else ERROR, message[1:]
        if channel not in self._named:
            self._named.add(channel)
            if len(content) != struct.calcsize("<H"):
                raise OSError(f"not a forwarded port: expected its number, found {content[:80]!r}")
        elif channel == DATA:
            if content:
                self._received.append(content)
        elif content:
            raise OSError(content[:500].decode(errors="replace"))

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """Return a file that reads from the connection."""
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Close the connection."""
        self._resources.close()


class _Reader(io.RawIOBase):
    def __init__(self, source: ForwardedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._source.receive(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _PodConnection(http.client.HTTPConnection):
    def __init__(self, connections: PodConnections, namespace: str, pod: str, port: int, timeout: float) -> None:
        super().__init__(pod, port, timeout=timeout)
        self._connections = connections
        self._namespace = namespace

    def connect(self) -> None:
        opened = self._connections.open(self._namespace, self.host, self.port, float(self.timeout or 10))
        self.sock = opened
