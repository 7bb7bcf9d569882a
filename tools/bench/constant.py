"""Baseline of the benchmark: an ASGI application on uvicorn, with our limits of connections and a constant answer."""

from __future__ import annotations

import asyncio
import json
import sys

from pipelines.serving.application import Message, Receive, Send
from pipelines.serving.server import listen, server_config

BODY = (
    b'{"model_name":"diabetes-progression","model_version":"sha256:%b","id":"42","outputs":'
    b'[{"name":"prediction","datatype":"FP32","shape":[1,1],"data":[152.13348388671875]}]}' % (b"0" * 64)
)
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


async def constant(scope: Message, receive: Receive, send: Send) -> None:
    """Read a request and send the constant answer."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    import uvicorn

    listener = listen("127.0.0.1", 0)
    print(json.dumps({"message": "live", "port": listener.getsockname()[1]}, separators=(",", ":")), file=sys.stderr)
    config = server_config(constant, finish_seconds=1)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))
