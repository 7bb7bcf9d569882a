"""Port-forwards to pods by every protocol that clients use."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from laptop.cluster.kinds import POD
from laptop.cluster.spdy_frames import FrameReader, FrameWriter, SpdyError
from laptop.tests.cluster.running_cluster import RunningCluster, serving_container

REQUEST = b"GET /hello HTTP/1.1\r\nHost: pod\r\n\r\n"


@pytest.fixture
def pod(cluster: RunningCluster, namespace: str) -> str:
    cluster.create(POD, namespace, {"metadata": {"name": "p"}, "spec": {"containers": [serving_container("v7")]}})
    cluster.wait(POD, namespace, "p", lambda found: '"Ready", "status": "True"' in json.dumps(found.get("status")))
    return "p"


def forward(
    cluster: RunningCluster, path: str, protocol: str, sent: list[bytes], *, enough: int = 0
) -> tuple[str | None, list[bytes]]:
    """Return the chosen protocol and the messages that a WebSocket gives until it closes, or until there are enough."""

    async def exchange() -> tuple[str | None, list[bytes]]:
        context = ssl.create_default_context(cafile=str(cluster.authority))
        headers = {"Authorization": f"Bearer {cluster.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"{cluster.endpoint}{path}", ssl=context, protocols=(protocol,), headers=headers
            ) as socket,
        ):
            for message in sent:
                await socket.send_bytes(message)
            got: list[bytes] = []
            while not enough or len(got) < enough:
                answer = await socket.receive(timeout=10)
                if answer.type is not aiohttp.WSMsgType.BINARY:
                    break
                got.append(answer.data)
            return socket.protocol, got

    return asyncio.run(exchange())


def test_a_websocket_carries_each_port_on_two_channels(cluster: RunningCluster, namespace: str, pod: str) -> None:
    path = f"{POD.path(namespace, pod)}/portforward?ports=8080"
    protocol, got = forward(cluster, path, "v4.channel.k8s.io", [b"\x00" + REQUEST], enough=3)
    assert protocol == "v4.channel.k8s.io"
    assert got[:2] == [b"\x00\x90\x1f", b"\x01\x90\x1f"]  # 8080, on the data and on the error channel
    assert got[2].startswith(b"\x00HTTP/1.1 200 OK")
    assert b'"version": "v7"' in got[2]


def test_a_port_that_the_pod_does_not_declare_is_an_error_on_its_channel(
    cluster: RunningCluster, namespace: str, pod: str
) -> None:
    path = f"{POD.path(namespace, pod)}/portforward?ports=9,8080"
    _, got = forward(cluster, path, "v4.channel.k8s.io", [b"\x02" + REQUEST], enough=6)
    (error,) = [message for message in got[4:] if message[:1] == b"\x01"]
    assert b"error forwarding port 9 to pod" in error
    assert any(message.startswith(b"\x02HTTP/1.1 200 OK") for message in got[4:])


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("?ports=0", 400), ("?ports=x", 400), ("?ports=", 400), ("?ports=70000", 400)]
)
def test_a_port_forward_without_a_valid_port_is_refused(
    cluster: RunningCluster, namespace: str, pod: str, query: str, status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        forward(cluster, f"{POD.path(namespace, pod)}/portforward{query}", "v4.channel.k8s.io", [])
    assert refused.value.status == status


def test_a_port_forward_to_a_pod_that_does_not_exist_is_refused(cluster: RunningCluster, namespace: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        forward(cluster, f"{POD.path(namespace, 'none')}/portforward?ports=1", "v4.channel.k8s.io", [])
    assert refused.value.status == 404


@pytest.mark.parametrize("websocket", ["true", "false"])
def test_kubectl_forwards_a_port_by_websocket_and_by_spdy(
    cluster: RunningCluster, namespace: str, pod: str, tmp_path: Path, websocket: str
) -> None:
    environment = {
        "KUBECONFIG": str(cluster.home / "kubeconfig"),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "KUBECTL_PORT_FORWARD_WEBSOCKETS": websocket,
    }
    kubectl = [str(Path(sys.executable).parent / "kubectl"), "--namespace", namespace]
    with subprocess.Popen(
        [*kubectl, "port-forward", f"pod/{pod}", ":8080"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+) -> 8080", line)
            assert found is not None, line + process.stdout.read()
            for body in (b"", b"x" * 300_000, b""):
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/a", data=body or None, timeout=10) as answer:
                    facts: dict[str, Any] = json.load(answer)
                assert (facts["version"], facts["path"], len(facts["body"])) == ("v7", "/a", len(body))
        finally:
            process.kill()


def test_frames_are_read_however_the_bytes_are_divided() -> None:
    writer = FrameWriter()
    data = writer.data(5, b"abc") + writer.ping(7) + writer.data(5, b"", fin=True)
    for size in (1, 3, len(data)):
        reader = FrameReader()
        frames = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
        assert [(frame.type, frame.stream, frame.data, frame.fin) for frame in frames] == [
            ("data", 5, b"abc", False),
            ("ping", 7, b"", False),
            ("data", 5, b"", True),
        ]


@pytest.mark.parametrize(
    "data", [b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", b"\x80\x03\x00\x01\x00\x00\x00\x0c" + b"x" * 12]
)
def test_bytes_that_are_not_spdy_are_refused(data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(FrameReader().feed(data))
