"""Errors of the connection to the cluster, and retries."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect, keep_connected, read_with_retry
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api

PODS = "/api/v1/namespaces/models/pods"
NONE = {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}


def read_pods() -> None:
    with connect("models") as client:
        read_with_retry(lambda: list(client.list(Pod)))


@pytest.mark.parametrize(
    ("status", "what", "fix"),
    [
        (401, "the cluster does not accept your credentials: it is 401", "sign in again"),
        (403, "the cluster rejected a request: it is 403", "docs/bootstrap.md lists what it needs"),
        (429, "the cluster is overloaded: it is 429", "try again later"),
        (422, "the cluster rejected a request: it is 422", ""),
    ],
)
def test_a_rejected_request_says_what_to_do(api: Api, status: int, what: str, fix: str) -> None:
    api.on("GET", PODS, status)
    with pytest.raises(MlopsError) as caught:
        read_pods()
    assert caught.value.what == what
    assert fix in caught.value.fix


def test_a_retry_comes_no_earlier_than_the_cluster_asks(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pipelines.cluster.connection.time.sleep", pauses.append)
    monkeypatch.setattr("pipelines.cluster.connection.PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr("pipelines.cluster.connection._retry_after", lambda _: 7.0)
    api.on("GET", PODS, 429, NONE)
    read_pods()
    assert pauses == [7.0]


def test_credentials_that_expired_are_renewed_and_the_read_goes_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.time.sleep", lambda _: None)
    monkeypatch.setattr("pipelines.cluster.connection.RENEWAL_SECONDS", 15.0)
    monkeypatch.setattr("pipelines.cluster.connection._accepted", threading.Event())
    api.on("GET", PODS, NONE, 401, 401, NONE)
    read_pods()
    read_pods()


def test_credentials_that_were_never_accepted_are_refused_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.RENEWAL_SECONDS", 15.0)
    monkeypatch.setattr("pipelines.cluster.connection._accepted", threading.Event())
    api.on("GET", PODS, 401, NONE)
    with pytest.raises(MlopsError, match="does not accept your credentials"):
        read_pods()


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0)])
def test_retry_after_is_read_in_seconds(header: str, seconds: float) -> None:
    from pipelines.cluster.connection import _retry_after

    request = httpx2.Request("GET", "http://a")
    response = httpx2.Response(429, headers={"Retry-After": header}, request=request)
    assert _retry_after(httpx2.HTTPStatusError("busy", request=request, response=response)) == seconds
    assert _retry_after(httpx2.ConnectError("down")) == 0.0


@pytest.fixture
def plugin(api: Api, tmp_path: Path) -> Any:
    """Return a function that makes KUBECONFIG use a credential plugin with this script."""

    def use(script: str | None, version: str = "client.authentication.k8s.io/v1beta1") -> None:
        command = tmp_path / "plugin"
        if script is not None:
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)
        file = tmp_path / "kubeconfig"
        config = yaml.safe_load(file.read_text())
        config["users"][0]["user"] = {"exec": {"apiVersion": version, "command": str(command)}}
        file.write_text(yaml.safe_dump(config))

    return use


TOKEN = """echo '{"status": {"token": "t"}}'"""


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_credential_plugin_gives_the_token(api: Api, plugin: Any, version: str) -> None:
    plugin(TOKEN, f"client.authentication.k8s.io/{version}")
    api.on("GET", PODS, NONE)
    read_pods()
    assert [path for _, path, _ in api.asked] == [PODS]


def test_a_block_that_keeps_connected_signs_in_once(
    api: Api, plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    plugin(f"echo run >> {runs}; {TOKEN}")
    api.on("GET", PODS, NONE)
    with keep_connected():
        read_pods()
        with keep_connected(), ThreadPoolExecutor(1) as pool:
            pool.submit(read_pods).result()
        with pytest.raises(MlopsError), connect("models"):
            raise httpx2.ConnectError("a request failed")
        read_pods()
        assert runs.read_text().split() == ["run"]
        other = tmp_path / "other"
        other.write_text((tmp_path / "kubeconfig").read_text())
        monkeypatch.setenv("KUBECONFIG", str(other))
        read_pods()
        assert runs.read_text().split() == ["run", "run"]
    read_pods()
    read_pods()
    assert runs.read_text().split() == ["run"] * 4


def test_blocks_of_two_threads_share_clients_until_the_last_one_ends(api: Api, plugin: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    plugin(f"echo run >> {runs}; {TOKEN}")
    api.on("GET", PODS, NONE)
    first_ended = threading.Event()

    def second() -> None:
        with keep_connected():
            read_pods()
            assert first_ended.wait(60)
            read_pods()

    with ThreadPoolExecutor(1) as pool:
        with keep_connected():
            read_pods()
            other = pool.submit(second)
            while len(api.asked) < 2:
                assert not other.done()
        first_ended.set()
        other.result()
    assert runs.read_text().split() == ["run"]


@pytest.mark.parametrize(
    ("script", "version", "what"),
    [
        ("echo 'the session has expired' >&2; exit 1", "v1beta1", "returned 1: the session has expired"),
        ("echo 'not JSON'", "v1beta1", "the credential plugin of KUBECONFIG failed: "),
        ("echo '{}'", "v1beta1", "the credential plugin of KUBECONFIG failed: "),
        (None, "v1beta1", "is not on the PATH"),
        (TOKEN, "v9", "apiVersion of the credential plugin of KUBECONFIG: expected one of"),
    ],
)
def test_a_failure_of_the_credential_plugin_is_a_readable_error(
    api: Api, plugin: Any, script: str | None, version: str, what: str
) -> None:
    plugin(script, f"client.authentication.k8s.io/{version}")
    with pytest.raises(MlopsError) as caught:
        read_pods()
    assert what in caught.value.what
    assert caught.value.fix
    assert api.asked == []


def test_other_errors_in_the_block_are_not_taken_for_a_failed_sign_in(api: Api) -> None:
    with pytest.raises(KeyError), connect("models"):
        raise KeyError("a mistake of the caller")
