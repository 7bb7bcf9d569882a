from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime import rpc

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.values import (
    Properties,
    has_unknown,
    lookup,
    secret_outputs,
    still_secret,
)
from laptop.engine.wire import decode, encode
from pipelines.declarations.errors import MlopsError

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.just(UNKNOWN)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.data())
def test_values_and_their_secret_marks_round_trip_through_the_wire_format(
    values: dict[str, Any], data: st.DataObject
) -> None:
    plain = without_nulls(values)
    assert isinstance(plain, dict)
    keys: set[str] = data.draw(st.sets(st.sampled_from(sorted(plain)))) if plain else set()
    given_ = Properties(plain, frozenset((key,) for key in keys))
    assert decode(encode(given_)) == given_


def test_a_nested_secret_is_marked_at_its_path() -> None:
    values = {"env": [{"name": "A", "value": "x"}, {"name": "B", "value": "y"}]}
    secrets = frozenset([("env", 1, "value")])
    assert decode(encode(Properties(values, secrets))) == Properties(values, secrets)


def test_a_resource_reference_becomes_an_id_and_a_component_reference_a_urn() -> None:
    struct = struct_pb2.Struct()
    signature = {rpc._special_sig_key: rpc._special_resource_sig}
    struct["one"] = {**signature, "urn": "urn:a", "id": "i-1"}
    struct["two"] = {**signature, "urn": "urn:b"}
    struct["new"] = {**signature, "urn": "urn:c", "id": ""}
    assert decode(struct).values == {"one": "i-1", "two": "urn:b", "new": UNKNOWN}


def test_an_asset_is_refused_with_a_fix() -> None:
    struct = struct_pb2.Struct()
    struct["code"] = {rpc._special_sig_key: rpc._special_asset_sig, "text": "x"}
    with pytest.raises(MlopsError, match=r"`code` is an asset(?s:.*)as text"):
        decode(struct)


def test_numbers_keep_their_type() -> None:
    values = decode(encode(Properties({"whole": 3, "half": 0.5, "flag": True}))).values
    assert [type(values[key]) for key in ("whole", "half", "flag")] == [int, float, bool]


def test_an_unknown_is_found_at_any_depth_and_stays_one_object() -> None:
    value = {"a": [{"b": UNKNOWN}]}
    assert has_unknown(value)
    assert not has_unknown({"a": [{"b": "[unknown]"}]})
    assert lookup(decode(encode(Properties(value))).values, ("a", 0, "b")) is UNKNOWN


def test_secret_inputs_and_their_copies_are_secret_outputs() -> None:
    inputs = Properties({"password": "hunter2hunter2", "port": 1}, frozenset([("password",)]))
    outputs = {
        "password": "hunter2hunter2",
        "port": 1,
        "url": "postgres://u:hunter2hunter2@h",
        "token": "t",
        "history": [{"last": "set to hunter2hunter2"}],
    }
    found = secret_outputs(inputs, outputs, ["token"])
    assert found == {("password",), ("url",), ("token",), ("history", 0, "last")}


def test_a_moved_secret_makes_its_whole_property_secret() -> None:
    assert still_secret([("env", 3, "value")], {"env": [], "other": 1}) == {("env",)}
    assert still_secret([("gone", "x")], {"env": []}) == frozenset()
