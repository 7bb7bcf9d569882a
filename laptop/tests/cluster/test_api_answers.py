"""The laptop's Kubernetes API answers recorded requests as the real API server did."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from laptop.conformance.api_requests import (
    ANSWERS,
    Answer,
    differences,
    normalised,
    read_requests,
    send_all,
)
from laptop.tests.cluster.bare_api import running_api

RECORDED: dict[str, Any] = json.loads(ANSWERS.read_text())


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    with running_api() as client:
        return send_all(client, "requests")


def test_there_is_a_recorded_answer_for_every_request() -> None:
    assert [request.id for request in read_requests()] == list(RECORDED)
    assert len(RECORDED) >= 400


@pytest.mark.parametrize("scenario", sorted({request.scenario for request in read_requests()}))
def test_the_answers_are_those_of_the_real_server(scenario: str, answers: dict[str, Answer]) -> None:
    found = {
        request.id: lines
        for request in read_requests()
        if request.scenario == scenario
        and not request.differs
        and (lines := differences(RECORDED[request.id], answers[request.id].as_json()))
    }
    assert found == {}


def test_an_answer_that_differs_is_found() -> None:
    def answer(status: int, body: dict[str, Any]) -> dict[str, Any]:
        return normalised(httpx.Response(status, json=body), "space").as_json()

    one = {"kind": "ConfigMap", "metadata": {"uid": "1", "resourceVersion": "5", "name": "a"}, "data": {"k": "v"}}
    same = {**one, "metadata": {"uid": "2", "resourceVersion": "9", "name": "a"}}
    assert differences(answer(200, one), answer(200, same)) == []
    for other in ({**one, "data": {"k": "w"}}, {**one, "extra": 1}, {**one, "metadata": {"name": "a"}}):
        assert differences(answer(200, one), answer(200, other))
    assert differences(answer(200, one), answer(201, one)) == ["status: 201; the real server gives 200"]


def test_every_difference_has_a_reason() -> None:
    differing = [request for request in read_requests() if request.differs]
    assert all(len(request.differs) > 20 for request in differing)
    assert len(differing) <= 14
