"""A Kubernetes API that forwards ports of pods by WebSocket, for tests of clients."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, RejectData, Request

Reach = Callable[[str, int], "tuple[str, int] | int | str"]
"""Path and port → an address to connect to, an HTTP status to reject with, or the text of an error."""


@dataclass
class ForwardingApi:
    """The server.

    Attributes:
        url: base URL.
        asked: path and headers of every request for a connection.
    """

    url: str
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def forwarding_api(reach: Reach) -> Iterator[ForwardingApi]:
    """Run the server on 127.0.0.1.

    Args:
        reach: says where a port of a pod is.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = ForwardingApi(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=_serve, args=(connection, api, reach), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(connection: socket.socket, api: ForwardingApi, reach: Reach) -> None:
    websocket = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    writing = threading.Lock()
    pod: socket.socket | None = None
    begins = True

    def send(event: wsproto.events.Event) -> None:
        with writing, suppress(OSError, wsproto.utilities.LocalProtocolError):
            connection.sendall(websocket.send(event))

    def copy_answers(source: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 15):
                send(BytesMessage(data=b"\0" + content))
        send(CloseConnection(code=1000))

    with connection:
        while True:
            data = b""
            with suppress(OSError):
                data = connection.recv(1 << 16)
            if not data:
                break
            websocket.receive_data(data)
            for event in websocket.events():
                if isinstance(event, Request):
                    headers = {name.decode(): value.decode() for name, value in event.extra_headers}
                    api.asked.append((event.target, headers))
                    where = urlsplit(event.target)
                    port = int(parse_qs(where.query)["ports"][0])
                    found = reach(where.path, port)
                    if isinstance(found, int):
                        send(RejectConnection(status_code=found, has_body=True))
                        send(RejectData(data=b'{"kind":"Status","message":"it is %d"}' % found))
                        return
                    send(AcceptConnection(subprotocol=event.subprotocols[0]))
                    for channel in (0, 1):
                        send(BytesMessage(data=bytes((channel,)) + struct.pack("<H", port)))
                    if isinstance(found, str):
                        send(BytesMessage(data=b"\1" + found.encode()))
                        continue
                    pod = socket.create_connection(found)
                    threading.Thread(target=copy_answers, args=(pod,), daemon=True).start()
                elif isinstance(event, BytesMessage) and pod is not None:
                    # A message may arrive in parts; only the first one begins with its channel.
                    pod.sendall(bytes(event.data)[1 if begins else 0 :])
                    begins = event.message_finished
                elif isinstance(event, Ping | CloseConnection):
                    send(event.response())
    if pod is not None:
        pod.close()
