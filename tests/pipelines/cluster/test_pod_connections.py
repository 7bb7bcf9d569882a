"""Connections to pods through the Kubernetes API."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelines.cluster.connection import SIGN_IN, connect
from pipelines.cluster.pod_connections import (
    SUBPROTOCOL,
    PodConnections,
    PortForwardDeniedError,
    pod_connections,
)
from pipelines.declarations.errors import MlopsError
from pipelines.serving.probe import EndpointClient, UnavailableError
from tests.http_responder import Answer, http_server
from tests.pipelines.cluster.conftest import write_kubeconfig
from tests.port_forward_server import ForwardingApi, Reach, forwarding_api


@contextmanager
def forwarding(folder: Path, patch: pytest.MonkeyPatch, reach: Reach) -> Iterator[tuple[ForwardingApi, PodConnections]]:
    with forwarding_api(reach) as api:
        write_kubeconfig(folder / "kubeconfig", api.url, token="secret-token")
        patch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
        with connect("models") as client, pod_connections(client) as connections:
            yield api, connections


def client_of(connections: PodConnections, *, timeout: float = 10.0) -> EndpointClient:
    connection = connections.connection("models", "price-1", 8080, timeout=timeout)
    return EndpointClient("pod://models/price-1", "price", connection=connection)


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def echo(method: str, path: str, body: bytes) -> Answer:
    return 200, json.dumps({"method": method, "path": path, "length": len(body), "versions": ["one"]}).encode()


def test_requests_reach_the_pod_over_one_authenticated_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server(echo) as url, forwarding(tmp_path, monkeypatch, lambda *_: address(url)) as (api, connections):
        pod = client_of(connections)
        assert pod.served() == "one"
        for size in (0, 1, 1 << 15, 3 << 16):
            assert pod.infer({"x": "y" * size})["length"] == size + 9
        pod.close()
    ((path, headers),) = api.asked
    assert path == "/api/v1/namespaces/models/pods/price-1/portforward?ports=8080"
    assert headers["authorization"] == "Bearer secret-token"
    assert SUBPROTOCOL == "v4.channel.k8s.io"


def test_a_long_answer_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"x": "y" * (5 << 20)}).encode()
    answer = (200, content)
    with (
        http_server(lambda *_: answer) as url,
        forwarding(tmp_path, monkeypatch, lambda *_: address(url)) as (_, connections),
    ):
        pod = client_of(connections)
        assert len(pod.get("/large")["x"]) == 5 << 20
        pod.close()


def test_a_connection_that_the_pod_closes_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def close_every_second(method: str, path: str, body: bytes) -> Answer:
        asked.append(path)
        return None if len(asked) % 2 == 0 else echo(method, path, body)

    with (
        http_server(close_every_second) as url,
        forwarding(tmp_path, monkeypatch, lambda *_: address(url)) as (api, connections),
    ):
        pod = client_of(connections)
        assert [pod.served() for _ in range(3)] == ["one"] * 3
        pod.close()
    assert len(api.asked) == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (404, "status 404: it is 404"),
        (500, "status 500: it is 500"),
        ("failed to connect to port 8080 inside the pod", "failed to connect to port 8080 inside the pod"),
    ],
)
def test_a_pod_that_cannot_be_reached_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, says: str
) -> None:
    with forwarding(tmp_path, monkeypatch, lambda *_: answer) as (_, connections):
        pod = client_of(connections)
        with pytest.raises(UnavailableError, match=says):
            pod.served()
        pod.close()


def test_a_pod_that_does_not_answer_in_time_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = silent.getsockname()
        with forwarding(tmp_path, monkeypatch, lambda *_: where) as (_, connections):
            pod = client_of(connections, timeout=0.2)
            with pytest.raises(UnavailableError, match=r"no answer within 0\.2 s"):
                pod.served()
            pod.close()


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, SIGN_IN),
        (403, "allow create and get of pods/portforward in models"),
    ],
)
def test_a_missing_permission_is_named_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, fix: str
) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.RENEWAL_SECONDS", 0.0)
    with (
        forwarding(tmp_path, monkeypatch, lambda *_: status) as (_, connections),
        pytest.raises(PortForwardDeniedError, match=f"price-1 in models: it is {status}") as caught,
    ):
        client_of(connections).served()
    assert caught.value.fix == fix


def test_credentials_that_expired_are_renewed_and_the_pod_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.RENEWAL_SECONDS", 15.0)
    accepted = threading.Event()
    accepted.set()
    monkeypatch.setattr("pipelines.cluster.connection._accepted", accepted)
    refusals = [401, 401]
    with (
        http_server(echo) as url,
        forwarding(tmp_path, monkeypatch, lambda *_: refusals.pop() if refusals else address(url)) as (_, connections),
    ):
        pod = client_of(connections)
        assert pod.served() == "one"
        pod.close()


def test_an_api_that_is_gone_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with (
        connect("models") as client,
        pod_connections(client) as connections,
        pytest.raises(UnavailableError, match="the Kubernetes API does not forward a port of price-1"),
    ):
        client_of(connections).served()


def test_an_invalid_kubeconfig_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(MlopsError, match="no usable KUBECONFIG"), connect("models"):
        pytest.fail("there is no cluster")
