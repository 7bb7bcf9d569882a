"""Bodies as the clients of KServe, Triton and MLServer make them get an answer, or a refusal that names the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pipelines.serving.bundles import ROW
from tests.pipelines.serving.conftest import Served, features, mixture


def test_a_body_of_the_rest_client_of_kserve_is_answered(linear: Served) -> None:
    """It names the model in the body, and writes null for what is not set."""
    (tensor,) = features()["inputs"]
    body = {
        "id": "4be6",
        "model_name": "diabetes-progression",
        "inputs": [{**tensor, "parameters": None}],
        "outputs": None,
        "parameters": None,
    }
    answer = linear.infer(body)
    assert answer.status == 200
    assert json.loads(answer.body)["id"] == "4be6"
    assert linear.infer({**body, "from_grpc": False, "model_version": None}).status == 200


def test_a_json_body_of_the_client_of_triton_is_answered(linear: Served) -> None:
    """It sends no content type, and asks for binary outputs, which a server without the extension sends as JSON."""
    body = features() | {"outputs": [{"name": "variable", "parameters": {"binary_data": True}}]}
    assert linear.infer(json.dumps(body).encode(), []).status == 200
    body = features() | {"parameters": {"binary_data_output": True, "priority": 1, "timeout": 1000, "sequence_id": 0}}
    assert linear.infer(body).status == 200


def test_a_body_of_mlservers_codecs_is_answered(linear: Served) -> None:
    tensor = features(ROW, ROW)["inputs"][0] | {"parameters": {"content_type": "np", "headers": None}}
    body = {"id": None, "parameters": {"content_type": "np"}, "inputs": [tensor], "outputs": []}
    assert linear.infer(body).status == 200
    assert linear.infer(features(parameters={"content_type": "np"})).status == 200


@pytest.mark.parametrize("rows", [(ROW,), (ROW, ROW)])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("shared_memory_region", "region0", "shared memory is not supported; send the data as JSON"),
        ("binary_data_size", 40, "the binary tensor data extension is not supported; send the data as JSON"),
    ],
)
def test_an_input_whose_data_is_elsewhere_is_refused_by_name(
    linear: Served, rows: tuple[Any, ...], name: str, value: Any, reason: str
) -> None:
    body = features(*rows, parameters={name: value})
    refused = (400, f"input 'features': parameter '{name}': {reason}")
    answer = linear.infer(body)
    assert (answer.status, answer.error) == refused
    del body["inputs"][0]["data"]
    answer = linear.infer(body)
    assert (answer.status, answer.error) == refused


def test_an_input_without_data_is_refused_by_name(linear: Served) -> None:
    body = features()
    del body["inputs"][0]["data"]
    answer = linear.infer(body)
    assert (answer.status, answer.error) == (400, "input 'features': expected data, found none")


def test_a_sequence_is_refused_because_no_state_is_kept(linear: Served) -> None:
    answer = linear.infer(features() | {"parameters": {"sequence_id": 7, "sequence_start": True}})
    assert answer.status == 400
    assert "keeps no state between requests" in answer.error


@pytest.mark.parametrize("parameters", [{"classification": 2}, {"shared_memory_region": "region1"}])
def test_an_output_in_another_form_is_refused(linear: Served, parameters: dict[str, Any]) -> None:
    answer = linear.infer(features() | {"outputs": [{"name": "variable", "parameters": parameters}]})
    assert answer.status == 400
    assert f"output 'variable': parameter {next(iter(parameters))!r}: " in answer.error


def test_text_in_base64_is_refused_because_it_would_be_taken_for_the_text(mixed: Served) -> None:
    body = mixture()
    body["inputs"][-1]["parameters"] = {"content_type": "base64"}
    answer = mixed.infer(body)
    assert (answer.status, answer.error) == (
        400,
        "input 'town': content_type 'base64' is not supported; send text as it is",
    )
    body["inputs"][-1]["parameters"] = {"content_type": "str"}
    assert mixed.infer(body).status == 200


def test_the_first_protocol_of_kserve_is_refused_by_name(linear: Served) -> None:
    answer = linear.infer({"instances": [ROW]})
    assert (answer.status, "missing required field `inputs`" in answer.error) == (400, True)


@pytest.mark.parametrize("depth", [2_000, 200_000])
@pytest.mark.parametrize("place", ["unknown", "parameters", "data"])
def test_deep_nesting_is_refused_wherever_it_stands(linear: Served, depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    body = json.dumps(features())
    text = {
        "unknown": body[:-1] + f', "model_name": {deep}}}',
        "parameters": body[:-1] + f', "parameters": {{"a": {deep}}}}}',
        "data": json.dumps(features(data=None)).replace("null", deep),
    }[place]
    answer = linear.infer(text.encode())
    assert answer.status == 400
    assert "deep" in answer.error or "expected a list of numbers" in answer.error
