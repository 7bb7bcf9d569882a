"""The pods behind a Service."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.connection import connect
from pipelines.cluster.service_pods import PodPort, ready_pods
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api

SERVICE, PODS = "/api/v1/namespaces/models/services/price-stable", "/api/v1/namespaces/models/pods"


def service(**changes: Any) -> dict[str, Any]:
    spec = {"selector": {"app": "price"}, "ports": [{"port": 80, "targetPort": "http"}], **changes}
    return {"metadata": {"name": "price-stable"}, "spec": spec}


def pod(name: str, *, ready: str = "True", deleted: bool = False, ports: Any = None) -> dict[str, Any]:
    listed = [{"name": "metrics", "containerPort": 9000}, {"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": name, **({"deletionTimestamp": "2026-11-29T12:00:00Z"} if deleted else {})},
        "spec": {"containers": [{"name": "serve", "ports": listed if ports is None else ports}]},
        "status": {"conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
    }


def found(api: Api, of: dict[str, Any], *pods: dict[str, Any]) -> list[PodPort]:
    api.on("GET", SERVICE, of)
    api.on("GET", PODS, {"items": list(pods), "metadata": {}})
    with connect("models") as client:
        return ready_pods(client, "price-stable")


def test_only_ready_pods_are_found_with_the_port_that_the_service_leads_to(api: Api) -> None:
    pods = [pod("b"), pod("a"), pod("c", ready="False"), pod("d", deleted=True), pod("e") | {"status": {}}]
    assert found(api, service(), *pods) == [PodPort("a", 8080), PodPort("b", 8080)]
    assert ("GET", PODS, {"labelSelector": ["app=price"]}) in api.asked


@pytest.mark.parametrize(
    ("port", "expected"),
    [({"port": 80}, 80), ({"port": 80, "targetPort": 9}, 9), ({"port": 80, "targetPort": "metrics"}, 9000)],
)
def test_a_target_port_is_a_name_a_number_or_the_port_itself(api: Api, port: dict[str, Any], expected: int) -> None:
    assert found(api, service(ports=[port]), pod("a")) == [PodPort("a", expected)]


def test_a_port_that_no_container_names_is_an_error(api: Api) -> None:
    with pytest.raises(MlopsError, match="the pod a has no port named 'http'"):
        found(api, service(), pod("a", ports=[]))


@pytest.mark.parametrize("changes", [{"selector": None}, {"ports": []}])
def test_a_service_without_pods_is_an_error(api: Api, changes: dict[str, Any]) -> None:
    with pytest.raises(MlopsError, match="the Service 'price-stable' in namespace 'models' selects no pods"):
        found(api, service(**changes), pod("a"))


def test_a_missing_service_is_an_error(api: Api) -> None:
    with connect("models") as client, pytest.raises(MlopsError, match="no Service 'price-stable'") as caught:
        ready_pods(client, "price-stable")
    assert "KUBECONFIG" in caught.value.fix
