"""API requests: the real API server and the laptop's answer one set of them with the same status and shape."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from laptop.conformance import control_plane
from laptop.conformance.api_requests import ANSWERS, Answer, RecordedRequest, differences, read_requests, send_all
from laptop.conformance.engines import link_binaries
from laptop.tests.cluster.bare_api import running_api

pytestmark = pytest.mark.needs("etcd", "kube-apiserver")

_WRITE = "RECORD_API_ANSWERS"
"""Variable that makes this test write the answers that `make test` compares with."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answers of the real API server, with no controllers."""
    binaries = link_binaries(tmp_path_factory.mktemp("api-bin"), ("etcd", "kube-apiserver"))
    home = tmp_path_factory.mktemp("api")
    with (
        control_plane.running(home, binaries, argo=False, kwok=False, controllers=False) as plane,
        plane.client() as client,
    ):

        def add_account(namespace: str) -> None:  # a controller's work
            account = {"metadata": {"name": "default"}}
            client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json=account).raise_for_status()

        answers = send_all(client, "requests", prepare=add_account)
    if os.environ.get(_WRITE):
        ANSWERS.write_text(json.dumps({key: answer.as_json() for key, answer in answers.items()}, indent=0) + "\n")
    return answers


@pytest.fixture(scope="module")
def ours() -> dict[str, Answer]:
    """The answers of the laptop's API."""
    with running_api() as client:
        return send_all(client, "requests")


@pytest.mark.parametrize("request_", read_requests(), ids=lambda request: request.id)
def test_the_laptop_answers_as_the_real_server(
    request_: RecordedRequest, real: dict[str, Answer], ours: dict[str, Answer]
) -> None:
    found = differences(real[request_.id].as_json(), ours[request_.id].as_json())
    if request_.differs:
        assert found, f"the answers are the same now; remove `differs` from {request_.id}"
    else:
        assert not found, "\n".join(found)


def test_the_recorded_answers_are_those_of_the_real_server(real: dict[str, Answer]) -> None:
    recorded: dict[str, Any] = json.loads(Path(ANSWERS).read_text())
    stale = [
        request.id
        for request in read_requests()
        if not request.differs and differences(recorded.get(request.id), real[request.id].as_json())
    ]
    assert not stale, f"the recorded answers are old: {stale}\nfix: run this test with {_WRITE}=1."
