"""Any body gets a prediction or a client error: never a 5xx, never a broken response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipelines.serving.bundles import ROW, linear_bundle, mixed_bundle
from tests.pipelines.serving.conftest import Served, features, mixture, served

pytestmark = pytest.mark.slow

LINEAR, MIXED = served(linear_bundle()), served(mixed_bundle())

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
BODY = json.dumps(features()).encode()
bounded = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def check(made: Served, body: bytes) -> None:
    """Check that the answer is a prediction or an error with a message."""
    answer = made.infer(body)
    assert answer.status in (200, 400, 413, 422)
    if answer.status == 200:
        assert answer.json["outputs"]
    else:
        assert 0 < len(answer.error) < 2000


@bounded
@given(st.binary(max_size=300))
def test_any_bytes_get_a_prediction_or_a_client_error(body: bytes) -> None:
    check(LINEAR, body)


@bounded
@given(st.integers(0, len(BODY)), st.integers(0, 20), st.binary(max_size=12))
def test_a_valid_body_with_replaced_bytes_gets_a_prediction_or_a_client_error(
    start: int, length: int, middle: bytes
) -> None:
    check(LINEAR, BODY[:start] + middle + BODY[start + length :])


@bounded
@given(values)
def test_any_json_gets_a_prediction_or_a_client_error(value: Any) -> None:
    check(LINEAR, json.dumps(value).encode())


@bounded
@given(st.sampled_from(["name", "shape", "datatype", "data", "parameters", "id", "outputs"]), values)
def test_a_valid_request_with_one_replaced_value_gets_a_prediction_or_a_client_error(key: str, value: Any) -> None:
    if key in ("id", "outputs"):
        check(LINEAR, json.dumps(features() | {key: value}).encode())
    else:
        check(LINEAR, json.dumps(features(**{key: value})).encode())


@bounded
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=10, max_size=10), st.booleans())
def test_a_row_is_accepted_alone_if_and_only_if_it_is_accepted_in_a_batch(numbers: list[float], likely: bool) -> None:
    numbers = [*ROW[:4], *numbers[4:]] if likely else numbers
    alone = LINEAR.infer(features(numbers))
    batch = LINEAR.infer(features(numbers, numbers))
    assert alone.status == batch.status
    if alone.status == 200:
        assert alone.json["outputs"][0]["data"] * 2 == batch.json["outputs"][0]["data"]
    else:
        assert batch.error.startswith(alone.error.split(" (and ")[0])


@bounded
@given(st.sampled_from(["wide", "small", "large", "flag", "town"]), st.lists(scalars, max_size=3) | values)
def test_any_value_in_any_datatype_gets_a_prediction_or_a_client_error(name: str, value: Any) -> None:
    check(MIXED, json.dumps(mixture(**{name: value})).encode())
