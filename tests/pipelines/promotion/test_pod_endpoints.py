"""Clients of the pods of an endpoint, with a fake Kubernetes API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.pod_endpoints import is_ready_pod, open_pods
from pipelines.serving.probe import EndpointClient, UnavailableError
from tests.http_responder import http_server
from tests.pipelines.cluster.conftest import Api, write_kubeconfig
from tests.pipelines.cluster.test_rollout_pods import PODS, ROLLOUT, pod, rollout
from tests.pipelines.registry.chains import offline_environment

DEV = offline_environment().model_copy(update={"endpoints": {"price": "http://internal.example"}})


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Api()
    with http_server(made) as url:
        write_kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield made


def test_there_is_a_client_for_every_ready_pod_of_the_live_release(api: Api) -> None:
    api.on("GET", ROLLOUT, rollout())
    api.on("GET", PODS, {"items": [pod("b"), pod("a"), pod("c", ready="False")], "metadata": {}})
    with open_pods(DEV, "price") as clients:
        assert [client.url for client in clients] == ["pod://models/a", "pod://models/b"]
        assert is_ready_pod(DEV, "price", clients[0])
    gone = EndpointClient("pod://models/c", "price")
    assert not is_ready_pod(DEV, "price", gone)
    assert {path for _, path, _ in api.asked} == {ROLLOUT, PODS}, "a connection is opened by its first request"


def test_an_endpoint_without_a_ready_pod_is_unavailable(api: Api) -> None:
    api.on("GET", ROLLOUT, rollout())
    api.on("GET", PODS, {"items": [pod("a", ready="False")], "metadata": {}})
    with pytest.raises(UnavailableError, match="no pod of price in dev is ready") as caught, open_pods(DEV, "price"):
        pytest.fail("no pod was ready")
    assert caught.value.fix == "kubectl -n models get pods"


def test_a_model_without_an_endpoint_is_an_error(api: Api) -> None:
    with pytest.raises(MlopsError, match="churn has no endpoint in dev"), open_pods(DEV, "churn"):
        pytest.fail("there was no endpoint")
    assert api.asked == []
