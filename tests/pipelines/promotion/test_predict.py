"""Requests of `mlops predict`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion import predict as module
from pipelines.promotion.predict import predict
from pipelines.serving.golden import CHECK_REQUEST

TARGET: Any = SimpleNamespace(project=SimpleNamespace(model=lambda name: None), descriptor=lambda name: None)
INPUTS = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests that the endpoint got."""
    found: list[dict[str, Any]] = []

    class Endpoint:
        def served(self) -> str:
            return "sha256:" + "a" * 64

        def infer(self, request: dict[str, Any]) -> dict[str, Any]:
            found.append(request)
            return {"number": len(found)}

    @contextmanager
    def open_one(descriptor: object, model: str) -> Iterator[Endpoint]:
        yield Endpoint()

    tensor = Tensor(name="features", datatype="FP32", shape=(1, 2), data=(1.0, 2.0))
    golden = GoldenPredictions(inputs=(tensor,), outputs=(tensor,), absolute_tolerance=0.0, relative_tolerance=0.0)
    monkeypatch.setattr(module, "_open_pod", open_one)
    monkeypatch.setattr(module, "golden_of", lambda *arguments: golden)
    return found


def test_golden_requests_have_the_id_that_monitors_leave_out(received: list[dict[str, Any]]) -> None:
    """A hundred copies for the soak would otherwise be drift."""
    shown, response = predict(TARGET, "churn", "dev", times=3)
    assert [request["id"] for request in received] == [CHECK_REQUEST] * 3
    assert received[0]["inputs"][0]["data"] == [1.0, 2.0]
    assert response == {"number": 3}
    assert shown == INPUTS, "a request that is copied from the output is real traffic"


def test_the_request_of_a_user_is_sent_as_it_is(received: list[dict[str, Any]]) -> None:
    shown, _ = predict(TARGET, "churn", "dev", b'{"id": "mine", "inputs": []}')
    assert shown == {"id": "mine", "inputs": []}
    assert received == [shown]


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_request_that_is_not_a_json_object_is_refused(received: list[dict[str, Any]], content: bytes) -> None:
    with pytest.raises(MlopsError, match="the request is not"):
        predict(TARGET, "churn", "dev", content)
    assert not received
